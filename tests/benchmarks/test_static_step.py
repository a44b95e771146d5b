# SPDX-License-Identifier: Apache-2.0
"""Tests of the benchmark of training steps in fixed shapes."""

from __future__ import annotations

import tensorflow as tf

from benchmarks import static_step


class CountTest(tf.test.TestCase):
    def test_operations_of_a_compiled_loop_are_counted(self):
        def double(x):
            # One sort before the loop, and one in each of its iterations.
            return tf.while_loop(
                lambda i, _: i < tf.cast(tf.size(x), tf.int32),
                lambda i, y: (i + 1, tf.sort(y + 1.0)),
                (0, tf.sort(x)),
            )[1]

        compiled = tf.function(double, jit_compile=True)
        text = compiled.experimental_get_compiler_ir(tf.range(5.0))(
            stage="optimized_hlo"
        )
        found = static_step.count_kernels(text)
        # Beside a sort there is a loop, or the increment that it fuses.
        self.assertBetween(found.outside, 2, 8)
        self.assertBetween(found.in_loops, 2, 8)

    def test_what_runs_no_kernel_is_not_counted(self):
        text = """HloModule m
%fused (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %add.1 = f32[2]{0} add(%p, %p)
}

%body (t: (s32[], f32[2])) -> (s32[], f32[2]) {
  %t = (s32[], f32[2]{0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %x = f32[2]{0} get-tuple-element(%t), index=1
  %y = f32[2]{0} sort(%x), dimensions={0}
  ROOT %r = (s32[], f32[2]{0}) tuple(%i, %y)
}

%condition (t.1: (s32[], f32[2])) -> pred[] {
  %t.1 = (s32[], f32[2]{0}) parameter(0)
  ROOT %is = pred[] fusion(%t.1), kind=kLoop, calls=%fused
}

ENTRY %main (a: f32[2]) -> (s32[], f32[2]) {
  %a = f32[2]{0} parameter(0)
  %zero = s32[] constant(0)
  %f = f32[2]{0} fusion(%a), kind=kLoop, calls=%fused
  %s = (s32[], f32[2]{0}) tuple(%zero, %f)
  ROOT %w = (s32[], f32[2]{0}) while(%s), condition=%condition, body=%body
}
"""
        found = static_step.count_kernels(text)
        self.assertEqual(found, static_step.Kernels(outside=2, in_loops=2))


if __name__ == "__main__":
    tf.test.main()
