import type { MachineModel } from '../../src/replay/types.js';

/** A record of one part takes 1 ms at the rate and .5 ms until its first byte. */
export const MACHINE: MachineModel = {
  expertBytes: 1000,
  diskBytesPerMs: 1000,
  diskLatencyMs: 0.5,
  queueDepth: 2,
  layerMs: 1,
  expertMs: 0.25,
};
