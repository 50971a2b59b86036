"""Compiled programs read from their text, by hand and for a small step."""

import jax
import pytest

from lbe.assemble import model as model_lib
from lbe.assemble import step as step_lib
from lbe.configs import common
from lbe.mesh import hlo
from lbe.mesh import sharding
from lbe.vocab import tokenizers

TEXT = """\
HloModule step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%cut (stack: f32[8,128], i: s32[]) -> f32[1,128] {
  %stack = f32[8,128]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %same = f32[8,128]{1,0} bitcast(%stack)
  ROOT %row = f32[1,128]{1,0} dynamic-slice(%same, %i, %i)
}

%condition (t: (s32[], f32[8,128])) -> pred[] {
  %t = (s32[], f32[8,128]{1,0}) parameter(0)
  %n = s32[]{:T(128)} constant(8)
  %i.1 = s32[] get-tuple-element(%t), index=0
  ROOT %less = pred[] compare(%i.1, %n), direction=LT
}

%body (t: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %t.1 = (s32[], f32[8,128]{1,0}) parameter(0)
  %i.2 = s32[] get-tuple-element(%t.1), index=0
  %stack.1 = f32[8,128]{1,0} get-tuple-element(%t.1), index=1
  %row.1 = f32[1,128]{1,0} fusion(%stack.1, %i.2), kind=kLoop, calls=%cut
  %gathered = f32[4,128]{1,0} all-gather(%row.1), replica_groups=GATHER
  %kernel = f32[4,128]{1,0} custom-call(%gathered), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"{\\"a\\": 1
}}, metadata={op_name="kernel"}
  ROOT %next = (s32[], f32[8,128]{1,0}) tuple(%i.2, %stack.1)
}

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8,128]{1,0}) tuple(%zero, %x)
  %loop = (s32[], f32[8,128]{1,0}) while(%start), condition=%condition, body=%body
  %last = f32[8,128]{1,0} get-tuple-element(%loop), index=1
  ROOT %sum = f32[8,128]{1,0:T(8,128)S(1)} all-reduce(%last), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
}
"""  # noqa: E501
MESH = dict(data=1, fsdp=4, context=1, tensor=2)


@pytest.mark.parametrize(
  'groups',
  [
    '{{0,2,4,6},{1,3,5,7}}, dimensions={0}',
    '[2,4]<=[4,2]T(1,0), dimensions={0}',
    "mesh['a'=4,'b'=2] {'a'}, dimensions={0}",
  ],
)
def test_a_loop_counts_as_often_as_it_runs(groups):
  """Catches bodies counted once, and each way to write groups read wrongly."""
  outside, loop = hlo.sections(TEXT.replace('GATHER', groups), MESH)
  (summed,) = outside.collectives
  assert (summed.kind, summed.axes) == ('all-reduce', ('tensor',))
  assert summed.sent == 2 * (8 * 128 * 4) / 2
  (gathered,) = loop.collectives
  assert loop.trips == 8 and loop.kernels == 8
  assert (gathered.kind, gathered.axes) == ('all-gather', ('fsdp',))
  assert gathered.group == (0, 2, 4, 6)
  assert (gathered.count, gathered.sent) == (8, 8 * (4 * 128 * 4) * 3 / 4)
  assert hlo.largest_gather(TEXT.replace('GATHER', groups)) == 4 * 128 * 4


def test_what_is_cut_from_a_stack_counts_and_not_the_stack():
  """Catches layers' weights read whole in every trip."""
  outside, loop = hlo.sections(TEXT.replace('GATHER', '{{0,2,4,6}}'), MESH)
  row, four, index = 128 * 4, 4 * 128 * 4, 4
  cut = 2 * row + index
  gather, kernel = row + four, 2 * four
  assert loop.memory_bytes == 8 * (cut + gather + kernel)
  # The result of the sum stays on the chip: S(1).
  assert outside.memory_bytes == 8 * 128 * 4


def test_a_step_sends_what_its_mesh_asks_for():
  """Each weight gathered once a pass, its gradient summed into parts.

  Catches weights that are gathered for all layers at once, gradients that are
  summed whole, and arrays that change places between devices.
  """
  config = common.base()
  config.model.update(dim=64, num_layers=3, num_heads=4, mlp_dim=128)
  # Without loops of its own, as on an accelerator.
  config.execution.update(
    compute_dtype='float32', remat='full', attention='blocks'
  )
  config.data.update(seq_len=64, batch_size=8)
  config.mesh.update(fsdp=4, tensor=2)
  model = model_lib.make_config(config, tokenizers.load('bytes'))
  mesh = sharding.make_mesh(config.mesh.to_dict())
  training = step_lib.make_training(
    config, model, mesh, step_lib.make_partition(config, model), 10
  )
  step = training.step.lower(
    training.abstract_state, training.abstract_batch, training.abstract_rates
  )
  text = step.compile().as_text()
  found = hlo.sections(text, dict(mesh.shape))
  forward, backward = (s for s in found if s.trips == 3)
  sent = [
    {
      (c.kind, c.axes): c.count // 3
      for c in hlo.totals([section])
      if c.kind != 'all-reduce'
    }
    for section in (forward, backward)
  ]
  gathered, summed = ('all-gather', ('fsdp',)), ('reduce-scatter', ('fsdp',))
  assert sent == [{gathered: 7}, {gathered: 7, summed: 7}]
  # Over `tensor`: the outputs of attention and MLP, and backwards the inputs.
  over_tensor = [
    sum(c.count for c in s.collectives if c.axes == ('tensor',)) // 3
    for s in (forward, backward)
  ]
  assert over_tensor[0] == 2 and over_tensor[1] <= 4
  # Nothing changes places between devices.
  assert not any(c.kind == 'all-to-all' for s in found for c in s.collectives)
  assert hlo.largest_gather(text) <= 4 * max(
    x.size // (3 if x.ndim > 2 else 1)
    for x in jax.tree.leaves(training.abstract_state['params'])
  )


GPU = """\
HloModule step, is_scheduled=true

%cut (stack: f32[8,128], i: s32[]) -> f32[1,128] {
  %stack = f32[8,128]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %row = f32[1,128]{1,0} dynamic-slice(%stack, %i, %i)
}

ENTRY %main (x: f32[8,128], n: s32[]) -> f32[8,128] {
  %x = f32[8,128]{1,0} parameter(0)
  %n = s32[] parameter(1)
  LINE
  ROOT %y = f32[8,128]{1,0} bitcast(%x)
}
"""


@pytest.mark.parametrize(
  'line, moved, sent',
  [
    # An asynchronous fusion: a row is read and written, not the whole stack.
    (
      '%a = ((f32[8,128]{1,0}, s32[]), f32[1,128]{1,0}, u32[]) '
      'fusion-start(%x, %n), calls=%cut',
      2 * 128 * 4 + 4,
      0,
    ),
    ('%a = f32[1,128]{1,0} fusion-done(%s)', 0, 0),
    # Two arrays gathered at once over 4 of 8.
    (
      '%a = ((f32[8,128]{1,0}, f32[8,128]{1,0}), (f32[32,128]{1,0}, '
      '/*index=1*/f32[32,128]{1,0})) all-gather-start(%x, %x), '
      'replica_groups={{0,2,4,6},{1,3,5,7}}, dimensions={0}',
      (8 + 2 * 32) * 128 * 4,
      2 * 32 * 128 * 4 * 3 / 4,
    ),
    # A product by cuBLAS with 32 MiB to work in, which are no result.
    (
      '%a = (f32[8,8]{1,0}, s8[33554432]{0}) custom-call(%x), '
      'custom_call_target="__cublas$lt$matmul"',
      (8 * 128 + 64) * 4,
      0,
    ),
  ],
)
def test_what_only_gpus_write_is_read(line, moved, sent):
  """Catches stacks counted for a row of them, and work space for a result."""
  (section,) = hlo.sections(GPU.replace('LINE', line), MESH)
  assert section.memory_bytes == moved
  assert sum(c.sent for c in section.collectives) == sent
  if 'all-gather' in line:
    assert hlo.largest_gather(GPU.replace('LINE', line)) == 32 * 128 * 4


def test_kernels_of_gpus_are_kernels():
  for target in ('__gpu$xla.gpu.triton', '__cudnn$fmhaSoftmaxBackward'):
    line = (
      f'%a = f32[8,128]{{1,0}} custom-call(%x), custom_call_target="{target}"'
    )
    (section,) = hlo.sections(GPU.replace('LINE', line), MESH)
    assert section.kernels == 1
