"""Shards tokenized on Apache Beam: `elsewhere` of build.prepare.

The driver reads the source and stores its shards; what a worker does with one
is what a process here would do. Workers need lbe and the folder of the cache.
"""

import functools

from lbe.data import shards


def runner(name, options=()):
  """elsewhere(folder, numbers) on a runner of Beam's, with its own options.

  Raises ImportError with the pip line where Beam is not there.
  """
  try:
    import apache_beam as beam
    from apache_beam.options import pipeline_options
  except ImportError as error:
    raise ImportError(
      f"--beam_runner={name} needs Apache Beam; pip install 'lbe[beam]' in an "
      'environment of its own, since it asks for an older protobuf.'
    ) from error

  def elsewhere(folder, numbers):
    asked = pipeline_options.PipelineOptions([f'--runner={name}', *options])
    with beam.Pipeline(options=asked) as pipeline:
      _ = (
        pipeline
        | beam.Create(numbers)
        | beam.Reshuffle()
        | beam.Map(functools.partial(shards.write_stored, str(folder)))
      )

  return elsewhere
