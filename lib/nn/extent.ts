import { LokoError } from "../errors.js";
import type { Extent } from "../native/addon.js";
import type { Grid } from "./operations.js";

export interface Window {
  readonly kernel: Extent;
  readonly stride: Extent;
  readonly padding: Extent;
}

/**
 * Positions of a kernel: floor((n + 2·padding - dilation·(kernel - 1) - 1) / stride) + 1 each way.
 *
 * @throws LokoError ERR_SHAPE_MISMATCH where the kernel does not fit in the padded image.
 */
export function convExtent(
  grid: Grid,
  { kernel, stride, padding, dilation }: Window & { readonly dilation: Extent },
  module: string,
): Grid {
  const along = (size: number, axis: 0 | 1) => {
    const reach = dilation[axis] * (kernel[axis] - 1) + 1;
    return Math.floor((size + 2 * padding[axis] - reach) / stride[axis]) + 1;
  };
  return fitting({ height: along(grid.height, 0), width: along(grid.width, 1) }, grid, module);
}

/**
 * Positions of a window by PyTorch's rules: in ceil mode the division rounds up, but the last window must
 * begin inside the image or the padding before it.
 *
 * @throws LokoError ERR_SHAPE_MISMATCH where the window does not fit in the padded image.
 */
export function poolExtent(
  grid: Grid,
  { kernel, stride, padding, ceilMode }: Window & { readonly ceilMode: boolean },
): Grid {
  const along = (size: number, axis: 0 | 1) => {
    const room = size + 2 * padding[axis] - kernel[axis];
    if (!ceilMode) return Math.floor(room / stride[axis]) + 1;
    const count = Math.ceil(room / stride[axis]) + 1;
    return (count - 1) * stride[axis] >= size + padding[axis] ? count - 1 : count;
  };
  return fitting({ height: along(grid.height, 0), width: along(grid.width, 1) }, grid, "a pooling");
}

function fitting(result: Grid, grid: Grid, what: string): Grid {
  if (result.height >= 1 && result.width >= 1) return result;
  throw new LokoError(
    "ERR_SHAPE_MISMATCH",
    `The window of ${what} does not fit in ${grid.height}x${grid.width} pixels and their padding.`,
  );
}
