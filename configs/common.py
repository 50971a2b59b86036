"""The fields that every run has, with their defaults, in one place.

A config is a plain `ml_collections.ConfigDict`; loading one imports neither
jax nor data. Every other file here starts from `base()` and changes what its
experiment changes. Fields that a run does not know are refused by name.
"""

import ml_collections

ConfigDict = ml_collections.ConfigDict


def _block(fields, changes, *, unlocked=()):
  """The fields with some changed; any other one is refused by name.

  Fields may be added to the blocks that are named in `unlocked`.
  """
  block = ConfigDict(fields)
  block.lock()
  for name in unlocked:
    block[name].unlock()
  block.update(changes)
  return block


# -------------------------------------------------------------------- data


def _texts():
  """Where texts lie, and how they are read."""
  return dict(
    # A file, a folder (searched recursively, in sorted order) or a pattern as
    # 'zh/*.txt', here, or at gs:// or s3:// (no pattern);
    # 'tfds:NAME/CONFIG:VERSION@SPLIT'; or an entry of LLaMA-Factory's registry,
    # 'dataset_info:FOLDER/dataset_info.json@NAME'.
    path='',
    # 'text', 'jsonl', 'json' (an array), 'csv', 'tsv', 'parquet', 'arrow'
    # (and Feather), 'arrayrecord' (of JSON objects), or 'auto': by the
    # ending. Behind that may come .gz, .bz2, .xz or .zst. A file that holds
    # records beyond doubt is read so, whatever this says; others are refused.
    kind='auto',
    # How a text file is cut into documents: 'blank_line', 'line', 'file',
    # or 'heading' (a line that matches `heading` starts a document).
    cut='blank_line',
    heading=r'^ = [^=].* = $',
    # The field of a record that holds the text.
    field='text',
  )


def source(**changes) -> ConfigDict:
  """One stream of text: `config.data.sources.NAME = source(path=...)`."""
  fields = dict(
    **_texts(),
    # Records with other fields' names: columns={'output': 'answer'} reads
    # `answer` as `output`.
    columns=ConfigDict(),
    # Instruction data: how conversations are written ('alpaca', 'belle',
    # 'chatml', ..., or a tokenizer's chat_template.jinja by its path); '' is
    # text. Rows hold whole examples, packed best-fit.
    template='',
    # What is learnt of them: 'responses', 'last_response', or 'all'.
    loss='responses',
    # An example longer than a row: 'fail' as a bad record, 'drop', or
    # 'cut_prompt' from the left; all are counted. No response is ever cut.
    too_long='fail',
    # Share of the training tokens; the shares of all sources sum to 1.
    proportion=1.0,
    # How often its text may be seen; a run that asks for more is refused
    # before it starts. 0 is any number: epochs are counted in the table.
    max_epochs=0.0,
    # Share of the documents that is held out, chosen by their hash.
    holdout=0.0,
    # Nested subsets: the first documents in the seeded order; 0 is all. Of
    # conversations documents and bytes are those before any is too long.
    max_documents=0,
    max_bytes=0,
    max_tokens=0,
    # What is left out, counted and shown by rule: see cleaning().
    cleaning=cleaning(),
    # 'fail', or 'skip': count and report what cannot be read, and what the
    # template cannot write.
    on_bad_record='fail',
    # Of conversations with turns out of order, empty ones or those of tools,
    # the longest whole part is kept, and counted; else they are bad records.
    trim_turns=False,
  )
  return _block(fields, changes, unlocked=['columns'])


def benchmark(**changes) -> ConfigDict:
  """Test items to keep out: `benchmarks.NAME = benchmark(path=...)`."""
  fields = dict(
    # A .jsonl, .json or .csv file, or a folder of them.
    path='',
    # The columns whose texts are looked for; numbers, as '0', in a CSV file
    # whose first line does not name them.
    columns=('question',),
  )
  return _block(fields, changes)


def cleaning(**changes) -> ConfigDict:
  """What is left out of a source; off is 0, False or empty."""
  fields = dict(
    # Of instruction data: nothing is asked, or a response is empty.
    drop_empty=False,
    # Length of a response, or of a text.
    min_characters=0,
    max_characters=0,
    # A response with the marks of a format, as '### Response:'.
    drop_templates=False,
    # A response that begins with its whole prompt.
    drop_echoes=False,
    # Share of a response or text that runs of 16 characters repeat.
    max_repetition=0.0,
    # Unicode scripts, as ('Han',), and the share of the letters of a
    # response or text that is in them at least.
    scripts=(),
    min_script_share=0.0,
    # ISO 639-1 code of the responses and texts, as 'vi', and the languages
    # it is told from; () is all that lingua knows.
    language='',
    other_languages=(),
    # Responses of so many characters, where the source's stop, that end
    # without a final mark. Not for scripts that write none.
    unfinished_from=0,
    # Texts that share 13 words in a row with a benchmark's items.
    benchmarks=ConfigDict(),
    # The same text again, by NFC and white space aside.
    drop_duplicates=False,
    # Jaccard similarity of runs of `shingle` characters, as 0.8, by MinHash.
    near_duplicates=0.0,
    num_permutations=128,
    shingle=5,
  )
  return _block(fields, changes, unlocked=['benchmarks'])


# --------------------------------------------------------- what learns, how


def group(**changes) -> ConfigDict:
  """Parameters that learn on their own terms; None is what `optim` says.

  `config.optim.groups.NAME = group(params=...)`; of the groups that match a
  parameter the first by name has it.
  """
  fields = dict(
    # A regular expression of whole names, as 'layers/.*', 'embed_VD'; of the
    # groups that match a parameter the first by name has it.
    params='.*',
    # 'all', or of an extended vocabulary's matrices the 'old' or 'new' rows.
    rows='all',
    frozen=False,
    # It learns from this step on, by a schedule that begins there.
    from_step=0,
    peak_lr=ml_collections.config_dict.placeholder(float),
    schedule=ml_collections.config_dict.placeholder(str),
    weight_decay=ml_collections.config_dict.placeholder(float),
  )
  return _block(fields, changes)


LINEAR = 'layers/(q|k|v|o|gate|up|down)_.*'


def adapt(config, *, params=LINEAR, also='nothing') -> ConfigDict:
  """LoRA on the layers, which are frozen; returns the config.

  Of embedding and head 'nothing' learns as well, or 'all', or the 'new_rows'
  of an extended vocabulary.
  """
  config.lora.params = params
  groups = config.optim.groups
  groups.body.frozen = True
  groups.vocabulary.frozen = also == 'nothing'
  groups.old_rows.frozen = also == 'new_rows'
  if also not in ('nothing', 'all', 'new_rows'):
    raise ValueError(
      f"also={also!r} is unknown; take 'nothing', 'all' or 'new_rows'."
    )
  return config


# -------------------------------------------------------------- evaluators


def _evaluator(name, changes, *, at_start=False, **fields):
  """A module of lbe.evals, what it is told, and when it runs."""
  fields = dict(
    evaluator=name,
    **fields,
    every=0,  # so many steps; 0 is only at the start and the end
    at_start=at_start,
    at_end=True,
  )
  return _block(fields, changes)


def perplexity(**changes) -> ConfigDict:
  """An evaluator: perplexity and bits per byte of one text set."""
  return _evaluator(
    'perplexity',
    changes,
    # A source's name (its held-out documents) or '' to read `path`; with
    # neither the set is not scored.
    source='',
    **_texts(),
    # Documents scored: the first ones in the seeded order; 0 is all.
    # The paper has 200,000.
    limit=0,
    # Window of the rolling log-likelihood; 0 is the training length.
    max_len=0,
    at_start=True,
  )


def in_context(**changes) -> ConfigDict:
  """An evaluator: whether the model still learns from its context.

  Canaries of random pieces, in no language: a sequence that is said twice
  ('copy'), values that are looked up by their keys ('lookup'), labels that
  take turns ('labels').
  """
  return _evaluator(
    'in_context',
    changes,
    # Sequences of each kind, and the tokens of one; none are no canary.
    sequences=2,
    length=64,
    seed=0,
    # The first pieces of the vocabulary, of which they are made; 0 is all, or
    # of a vocabulary that was extended, those of before.
    num_pieces=0,
    # A score is warned of that is lower than at the start of the run by more.
    warn_fall=0.1,
    at_start=True,
  )


def parallel(**changes) -> ConfigDict:
  """An evaluator: bits for sentences that are the same in many languages."""
  return _evaluator(
    'parallel',
    changes,
    # A folder of SIB-200 or NTREX, or one with en.txt, ta.txt, ... of lines
    # that are the same sentence; '' leaves it out.
    path='',
    # As ('ta', 'sw'); () is all that are there.
    languages=(),
    # Whose bits those of the others are divided by; '' is none.
    reference='en',
    # One split of SIB-200, as 'test'; '' is all.
    split='',
    # Sentences of each language: the first ones; 0 is all.
    limit=0,
    at_start=True,
  )


def _questions():
  """An exam, and what of it is asked."""
  return dict(
    protocol='',
    # The exam's folder, or the file; '' leaves it out.
    path='',
    # Some subjects only, as ('law',), of XCOPA and SIB-200 languages; () is
    # all.
    subjects=(),
    # Questions of each subject; 0 is all.
    limit=0,
  )


def multiple_choice(**changes) -> ConfigDict:
  """An evaluator: questions with choices, answered by the likeliest.

  `protocol` is 'mmlu@hendrycks' or '@lmeval', 'ceval@official', '@lmeval' or
  '@cla', 'cmmlu@lmeval', 'xcopa@lmeval', 'sib200@labels', '@labels_native' or
  '@lmeval_1' to '_5', 'agieval@loglik' or '@lmeval', 'gaokao@loglik';
  'choices@letters', '@texts' or '@continuation' of an own file (see
  lbe/exams/own.py).
  """
  return _evaluator(
    'multiple_choice',
    changes,
    **_questions(),
    # '' and None are the protocol's own.
    split='',
    num_shots=ml_collections.config_dict.placeholder(int),
    # None is the habit of the tokenizer.
    bos=ml_collections.config_dict.placeholder(bool),
    # Where prompt and choice part: 'safe', 'harness', or '': by protocol.
    cut='',
  )


def exam(**changes) -> ConfigDict:
  """An evaluator: exams answered in text, read by their official rules.

  `protocol` is 'agieval@official', 'agieval@official_few_shot',
  'gaokao@official', 'agieval@lmeval' of the two files without options, and
  'mgsm@direct', whose subjects are languages.
  """
  return _evaluator(
    'exam',
    changes,
    **_questions(),
    # How a chat model is asked ('alpaca', ..., or a .jinja file); '' is the
    # bare text.
    template='',
    # None is the protocol's own, 512 or the harness's 32; 0 and 0.3.
    max_new_tokens=ml_collections.config_dict.placeholder(int),
    temperature=ml_collections.config_dict.placeholder(float),
    seed=0,
  )


def pairs(**changes) -> ConfigDict:
  """An evaluator: of two texts the right one is to be the likelier.

  `protocol` is 'pairs@blimp', of its folder; 'pairs@own', of a file of pairs;
  'pairs@swap', of texts in any language, whose sentences are compared with
  themselves after two neighbouring words (or characters, where a script writes
  no spaces) have changed places.
  """
  return _evaluator(
    'pairs',
    changes,
    protocol='pairs@swap',
    # Of 'pairs@swap' a source's name (its held-out documents), or '' to read
    # `path`; the fields below it are how texts are read. With neither it is
    # left out.
    source='',
    **_texts(),
    # As ('ta', 'sw'): `path` is a folder of SIB-200 or NTREX, or has CODE.txt
    # for each of them, and each has `limit` pairs and a score of its own.
    languages=(),
    # Pairs: the first of each file, or of sentences in an order that `seed`
    # and they decide; 0 is all.
    limit=0,
    seed=0,
    # Of 'pairs@own' the fields of the right text and of the wrong one, and
    # those that scores are told by, as ('phenomenon',). JSON lines, or a table
    # (.tsv, .csv) with a header.
    sides=('good', 'bad'),
    parts=(),
  )


def lm_eval(**changes) -> ConfigDict:
  """An evaluator: tasks of lm-evaluation-harness, run by our own engine."""
  return _evaluator(
    'lm_eval',
    changes,
    # As ('hellaswag', 'arc_easy'); () leaves it out.
    tasks=(),
    # A folder with more task files, whose data may be local.
    include_path='',
    # None is each task's own.
    num_fewshot=ml_collections.config_dict.placeholder(int),
    # Documents of each task; 0 is all.
    limit=0,
    # None is the habit of the tokenizer.
    bos=ml_collections.config_dict.placeholder(bool),
    # Where context and continuation part: 'harness' or 'safe'.
    cut='harness',
    # Where a task that generates does not say.
    max_new_tokens=256,
  )


def _answering(*, template, max_new_tokens=256):
  """How a model is asked, and how it writes."""
  return dict(
    # A template's name, the path of a chat_template.jinja, or '' for the
    # prompt as a text to go on with.
    template=template,
    # Prompts answered: the first ones; 0 is all.
    limit=0,
    max_new_tokens=max_new_tokens,
    temperature=0.0,  # 0 is greedy
    top_k=0,
    top_p=1.0,
    seed=0,
    stop=(),
  )


def _prompts():
  """What a model is asked, and in which languages."""
  return dict(
    # A JSONL file of `prompt` (or question, or instruction and input, or
    # messages that end with the user) and perhaps id, language and
    # reference; '' is an empty slot.
    path='',
    # Of prompts that name none, as 'zh'.
    language='',
    # 'scripts', or 'lingua' or the path of a fastText model, which also tell
    # apart languages that share a script.
    language_identifier='scripts',
  )


def generation(**changes) -> ConfigDict:
  """An evaluator: samples to prompts, compared where there are references."""
  return _evaluator(
    'generation',
    changes,
    **_prompts(),
    **_answering(template=''),
    # A JSONL file of id and response to be scored in place of the model's.
    responses='',
    # The official script whose exact match and F1 it is: 'squad1', 'squad2',
    # 'mlqa', 'cmrc' or 'words'; '' is that of the language (see
    # lbe/exams/answers.py).
    f1_script='',
  )


def code_switching(**changes) -> ConfigDict:
  """An evaluator: whether responses stay in the language of their prompt."""
  return _evaluator(
    'code_switching',
    changes,
    **_prompts(),
    # Where `path` is a task's folder of the Language Confusion Benchmark
    # (SOURCE/LANG.csv): which of its languages, as ('zh', 'ar'); () is all.
    # `limit` is then of each file.
    languages=(),
    **_answering(template='alpaca'),
    # A JSONL file of id and response to be scored in place of the model's.
    responses='',
    # A file of English words, one a line, for the word-level pass rate; ''
    # takes every Latin word in small letters for one.
    english_words='',
    # A CSV file on which people mark what they see, and its rows; in
    # training with the step in its name. Read back by
    # `python -m lbe.judge --sheet=FILE`.
    sheet='',
    sheet_size=200,
  )


def response_quality(
  *, judge: ConfigDict | None = None, **changes
) -> ConfigDict:
  """An evaluator: responses to questions, scored by a judge (LLM-Eval).

  `judge` is endpoint(...), where nothing is given, local_judge(...) or
  people().
  """
  return _evaluator(
    'response_quality',
    changes,
    # A JSONL file of id, category, question, reference and language, or
    # BELLE's eval_set.json; '' is an empty slot.
    questions='',
    # A JSONL file of id and response to be judged in place of the model's.
    responses='',
    **_answering(template='alpaca', max_new_tokens=512),
    # 'paper' (0 to 3), 'llmeval1' (1 to 3 stars), 'llmeval2_objective' or
    # '_subjective' (a scale for each criterion), the path of a rubric's
    # .toml, or that of BELLE's eval_prompt.json (0 to 1).
    rubric='paper',
    judge=judge or endpoint(),
  )


def _asked():
  """A judge that is a model."""
  return dict(
    # The endpoint's name of a model; of a local one checkpoint or folder.
    model='',
    max_new_tokens=512,
    # Every reply by its prompt: nothing is asked twice. Evaluators and runs
    # may share the file.
    cache='runs/judged.jsonl',
  )


def endpoint(**changes) -> ConfigDict:
  """A judge behind an OpenAI-compatible endpoint."""
  fields = dict(
    kind='endpoint',
    **_asked(),
    base_url='https://api.openai.com/v1',
    # The key is read from the environment variable that is named here; ''
    # sends none.
    key_env='OPENAI_API_KEY',
    seed=0,
    # More fields of a request, as {'top_p': 1}; None takes one out.
    request=ConfigDict(),
    concurrency=8,  # requests at a time
    requests_per_minute=0,  # 0 is no limit
    timeout_s=120.0,
    max_tries=6,  # of one request, where the server fails
    backoff_s=1.0,  # before the second try; doubled each time
    # A reply that cannot be read is answered with the reason, until a prompt
    # was asked so often.
    max_asks=3,
  )
  return _block(fields, changes, unlocked=['request'])


def local_judge(**changes) -> ConfigDict:
  """A judge on disk, asked once: it would say the same again."""
  fields = dict(
    kind='local',
    **_asked(),
    template='',  # as that of the model that is judged
    batch_size=8,
    dtype='bfloat16',
  )
  return _block(fields, changes)


def people() -> ConfigDict:
  """Responses are only kept, for the sheets of `python -m lbe.judge`."""
  return _block(dict(kind='people'), {})


# ------------------------------------------------------------------- a run


def base() -> ConfigDict:
  """The defaults of every run."""
  config = ConfigDict()
  config.seed = 0

  # Where the weights come from: a checkpoint, a workdir, a Hugging Face
  # folder, 'hf:OWNER/NAME' or 'hf:OWNER/NAME@REVISION' on the hub, or '' for
  # random weights of the shape under `model`.
  config.init_from = ''
  # Another run of this config, up to its length and schedule, that this one
  # goes on from with moments and place in the data: its workdir (the newest
  # checkpoint), or WORKDIR/checkpoints/STEP.
  config.branch_from = ''
  # A SentencePiece .model, a tokenizer.json, a folder with either, its name on
  # the hub, or 'bytes'; '' is the tokenizer that came with init_from; 'train'
  # trains one on the run's own sources with `tokenizer_vocab_size` pieces.
  config.tokenizer = ''
  config.tokenizer_vocab_size = 0

  # Where `tokenizer` extends the one that came with init_from, its new pieces
  # get rows: 'pieces_mean' (of the old rows that spell a piece), 'dictionary'
  # (of those that spell its translations), 'mean', 'gaussian' (of the old
  # rows' mean and covariance), 'normal' (0.02, the published recipe).
  config.new_rows = dict(
    method='pieces_mean',
    dictionary='',  # lines of a new word, a tab, and its translation
    match_norms=False,  # scale each new row to the old rows' mean norm
  )

  # The shape of a model that starts from random weights.
  config.model = dict(
    preset='',  # of lbe.models.architecture.PRESETS, or the numbers below
    dim=0,
    num_layers=0,
    num_heads=0,
    num_kv_heads=0,
    head_dim=0,  # 0 is dim / num_heads
    mlp_dim=0,
    max_positions=2048,
    rope_theta=10000.0,
    norm_eps=1e-5,
    tied=False,
    init_std=0.02,
  )
  # Rows of the vocabulary are padded to a multiple of this.
  config.vocab_multiple = 128

  config.execution = dict(
    compute_dtype='bfloat16',  # or 'float32'
    scan=True,  # False unrolls the layers: slower to compile
    # What is kept for the backward pass: 'none' makes nothing again, then with
    # less memory 'dots_attention', 'dots', 'attention', 'full', and 'offload',
    # which is 'full' with the layers' inputs in the host's memory.
    remat='none',
    # 'auto' is 'splash' on TPUs, 'tiles' on CPUs and 'blocks' elsewhere;
    # 'tokamax' has kernels for NVIDIA (bfloat16, mesh.context=1), 'xla' is
    # the reference.
    attention='auto',
  )

  config.data = dict(
    sources=ConfigDict(),
    # Of the order of documents: what a subset, a `limit` and a budget in text
    # take. None is `seed`, which batches and new weights go by.
    seed=ml_collections.config_dict.placeholder(int),
    seq_len=2048,
    batch_size=128,  # rows of the global batch
    bos=True,  # a BOS before each document
    eos=True,  # an EOS behind each document
    cache_dir='',  # '' is WORKDIR/data
    num_workers=0,  # processes that tokenize; 0 is one per core
  )

  # How long: exactly one of the numbers is set. Documents, bytes and epochs
  # count the text of the source named in `of`, or of all together where ''.
  # Fewer documents or bytes than there are: the first ones in the seeded order.
  # Of epochs nothing is cut: less than one is a random part of the rows.
  config.budget = dict(
    steps=0,
    tokens=0,
    documents=0,
    bytes=0,
    epochs=0.0,
    of='',
  )

  config.optim = dict(
    kind='adamw',  # 'lion' and 'adafactor' keep less, and want other rates
    schedule='cosine',  # 'cosine', 'linear', 'constant', 'wsd'
    peak_lr=2e-4,
    warmup_fraction=0.03,
    final_fraction=0.1,  # of the peak, at the end
    decay_fraction=0.1,  # of the steps, for 'wsd'
    b1=0.9,
    b2=0.95,
    eps=1e-8,
    first_moment_dtype='float32',  # or 'bfloat16', of adamw and lion
    # Or 'bfloat16': half the memory; microbatches are summed in it, too.
    gradient_dtype='float32',
    weight_decay=0.1,
    clip_norm=1.0,
    # A step whose gradient's norm is so many times the usual one (a moving
    # mean of those before it) changes nothing, as 5.0; 0 takes all of them.
    skip_above=0.0,
    z_loss=0.0,  # times the squared normalizer of every target
    # Slots for stages: what is left unchanged learns like all the rest.
    groups=dict(
      old_rows=group(params='embed_VD|head_DV', rows='old'),
      vocabulary=group(params='embed_VD|head_DV'),
      body=group(params='layers/.*|final_norm_D'),
    ),
    frozen_dtype='float32',  # or 'bfloat16': of weights that never learn
  )

  # Adapters beside weights of the layers; adapt() sets what goes with them.
  config.lora = dict(
    params='',  # a regular expression, as 'layers/(q|v)_.*'; '' is none
    rank=8,
    alpha=32.0,
    dropout=0.0,
    rslora=False,
  )

  # Options of XLA's compiler for the train step, as
  # ('xla_tpu_scoped_vmem_limit_kib=98304',); configs/hardware.py has those of
  # chips.
  config.compiler_options = ()

  # Devices along each axis; one of them may be -1: what is left. `context`
  # cuts rows, into an early and a late chunk for each device, so it is for
  # rows that are too long for one; twice it divides data.seq_len.
  config.mesh = dict(data=1, fsdp=-1, context=1, tensor=1)
  # Parts of a batch, one after the other: less memory, and the same losses.
  config.num_microbatches = 1
  # Looks for silent faults of devices (docs/trust.md): the state is compared
  # between steps, and one in so many steps is computed twice, which takes the
  # memory of one state more. 0 looks at nothing.
  config.replay_every = 0

  config.evals = ConfigDict()
  # Rows of up to 512 tokens; of longer ones fewer. A CPU is faster with 4, with
  # 16 where models have a million weights.
  config.eval_batch_size = 32
  # Scores beside each other at the end, as 'en/bits_per_byte' and 'ceval/acc':
  # what may be forgotten, and what is learnt.
  config.forgetting = dict(source=(), target=())

  config.log_every = 10
  # Trackers that get the metrics as well, as ('wandb', 'mlflow'); their own
  # environment variables say where.
  config.sinks = ()
  config.checkpoint = dict(
    every=500,
    keep=2,
    # The checkpoint with the best value of a score is kept as well, as
    # 'eval/zh/bits_per_byte' (the lowest) or 'eval/ceval/acc' (the highest).
    keep_best='',
  )

  # At the end: a Hugging Face folder (WORKDIR/hf), and lines that the model
  # writes to these prompts.
  config.export_hf = False
  config.sample_prompts = ()
  config.sample_max_new_tokens = 64

  # A misspelt field is refused, here and on the command line.
  config.lock()
  config.data.sources.unlock()
  config.evals.unlock()
  config.optim.groups.unlock()
  return config


def stored(record: dict) -> ConfigDict:
  """A config as JSON holds it; fields that it lacks have their defaults."""

  def merged(known, changes):
    result = dict(known)
    for name, value in changes.items():
      if isinstance(value, dict):
        value = merged(known.get(name) or {}, value)
      elif isinstance(value, list):
        value = tuple(value)
      result[name] = value
    return result

  config = ConfigDict(merged(base().to_dict(), record))
  return config.lock()
