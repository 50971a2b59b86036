"""An installed lbe, far from its repository: it does the README's main job."""

import re
import shlex
import shutil
import subprocess
import sys
import venv

import pytest

import conftest
import runs


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
  """Runs a command in an empty folder, where lbe comes from its wheel.

  What lbe needs is taken from the environment of the tests: only that is not
  installed anew, and lbe's own editable install is no part of it.
  """
  root = tmp_path_factory.mktemp('wheel')
  source = root / 'source'
  for part in ('lbe', 'configs'):
    shutil.copytree(conftest.ROOT / part, source / part)
  for part in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(conftest.ROOT / part, source)
  venv.create(root / 'venv', symlinks=True)
  (packages,) = root.glob('venv/lib/python*/site-packages')
  # Neither the repository nor what is installed here stands on its path.
  kept = {k: v for k, v in runs.environment().items() if k != 'PYTHONPATH'}
  for arguments in (
    ('wheel', '--no-build-isolation', f'--wheel-dir={root}', str(source)),
    ('install', f'--target={packages}', f'--find-links={root}', 'lbe'),
  ):
    subprocess.run(
      [sys.executable, '-m', 'pip', '--disable-pip-version-check']
      + [arguments[0], '--quiet', '--no-deps', '--no-index', *arguments[1:]],
      cwd=root,
      env=kept,
      check=True,
    )
  needed = next(p for p in sys.path if p.endswith('site-packages'))
  (packages / 'needed.pth').write_text(needed + '\n')
  (root / 'empty').mkdir()

  def run(command, **variables):
    words = shlex.split(command)
    assert words[0] == 'python'
    process = subprocess.run(
      [str(root / 'venv' / 'bin' / 'python'), *words[1:]],
      cwd=root / 'empty',
      env=kept | variables,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=300,
    )
    return process.returncode, process.stdout

  run.folder, run.packages = root / 'empty', packages
  return run


def steps_of_the_readme():
  """The seven commands; '...' stands for the data's flags, given once.

  The fourth is the third again.
  """
  text = (conftest.ROOT / 'README.md').read_text(encoding='utf-8')
  (block,) = re.findall(r'```bash\n(# 1\. Convert.*?)```', text, re.S)
  block = re.sub(r'^#.*\n', '', block, flags=re.M).replace('\\\n', ' ')
  steps = [step.strip() for step in re.split('\n\n+', block.strip())]
  return [*steps[:3], steps[2], *steps[3:]]


def test_the_wheel_does_the_main_job(installed, test_data):
  """Catches what only a checkout has: configs, the sample, data of packages."""
  status, output = installed('python -c "import lbe; print(lbe.__file__)"')
  assert str(installed.folder.parent) in output, output
  base = test_data / 'ckpt_stories260K' / 'hf'
  for language, letters in (
    ('zh', '清晨的集市上人来人往。'),
    ('en', 'A boat. '),
  ):
    for name in (language, f'{language}_held_out'):
      lines = [f'{i} {letters * (3 + i % 5)}' for i in range(600)]
      (installed.folder / f'{name}.txt').write_text('\n\n'.join(lines))
  small = (
    '--config.budget.steps=2 --config.data.seq_len=64 '
    '--config.data.batch_size=4 --config.data.num_workers=1'
  )
  steps = steps_of_the_readme()
  assert len(steps) == 7
  flags = None
  for step in steps:
    step = step.replace('HF_DIR', str(base)).replace('EN_HELD_OUT', 'held.txt')
    step = re.sub(r'=ZH\b', '=zh.txt', re.sub(r'=EN\b', '=en.txt', step))
    step = step.replace('held.txt', 'en_held_out.txt')
    if '--dry_run' in step:
      flags = ' '.join(re.findall(r'--config\.[dei]\S+', step))
    step = step.replace(' ...', f' {flags}')
    if '--config=' in step:
      step += f' {small}'
    status, output = installed(step, LBE_TEST_DATA='')
    assert status == 0, f'{step}\n{output}'
  exported = installed.folder / 'runs' / 'zh_hf'
  assert (exported / 'model.safetensors').exists()
  assert (exported / 'certificate.json').exists()


def test_the_wheel_has_one_command(installed):
  """`lbe` was no command, and `lbe.train` none without `python -m`."""
  status, output = installed(f'python {installed.packages}/bin/lbe --help')
  assert status == 0 and '\n  train ' in output, output


def test_the_wheel_has_the_quickstarts_sample(installed):
  status, output = installed(
    'python -m lbe.prepare --config=lbe:quickstart --config.tokenizer=bytes '
    '--workdir=runs/quick'
  )
  assert status == 0, output
  assert (installed.folder / 'runs' / 'quick').is_dir()


def test_a_project_with_configs_of_its_own(installed):
  """Catches one `configs` taken for the other, whichever way round."""
  project = installed.folder / 'project'
  (project / 'configs').mkdir(parents=True)
  (project / 'configs' / '__init__.py').touch()
  (project / 'configs' / 'ours.py').write_text('STEPS = 7\n')
  (project / 'configs' / 'mine.py').write_text(
    'from lbe.configs import quickstart\nfrom configs import ours\n'
    'def get_config():\n  config = quickstart.get_config()\n'
    '  config.budget.steps = ours.STEPS\n  return config\n'
  )
  # As another project's, in the folder where the program is started.
  (installed.folder / 'configs').mkdir()
  (installed.folder / 'configs' / '__init__.py').touch()
  command = 'python -m lbe.train --config={} --workdir=runs/mine --dry_run'
  for config in ('project/configs/mine.py', project / 'configs' / 'mine.py'):
    status, output = installed(
      f'{command.format(config)} --config.tokenizer=bytes'
    )
    assert status == 0, output
    assert '7 steps' in output, output


def test_a_config_that_is_not_there_names_those_that_are(installed):
  for config in ('configs/small_zh.py', 'lbe:smallzh'):
    status, output = installed(f'python -m lbe.train --config={config}')
    assert status == 1
    assert 'error: in the config or its overrides: there is no file' in output
    assert '--config=NAME for one that comes with lbe: eval_conf' in output
    assert 'Traceback' not in output
