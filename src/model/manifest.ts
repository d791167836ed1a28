/**
 * What `manifest.json` of a `.moe` directory says, as types: see docs/model-format.md for the page and
 * native/kernels/formats.h for the bytes. Reading and checking one is in read-moe.ts, writing in write-moe.ts.
 */

export const FORMAT_NAME = 'moestro';
export const FORMAT_VERSION = 1;

/** The numbers of a model, one shape for all supported families; models/architectures/ says how each is read. */
export interface Architecture {
  /** Name of the file in models/architectures: qwen3_moe, qwen2_moe, olmoe, mixtral. */
  readonly family: string;
  readonly hiddenSize: number;
  readonly layerCount: number;
  readonly headCount: number;
  readonly kvHeadCount: number;
  readonly headDim: number;
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly ropeTheta: number;
  readonly rmsNormEps: number;
  /** RMS norm of q and k: none, per head (weight [headDim]) or over the whole projection (weight [heads * headDim]). */
  readonly qkNorm: 'none' | 'head' | 'full';
  /** q, k and v projections have a bias. */
  readonly attentionBias: boolean;
  /** lm_head is the embedding matrix. */
  readonly tiedEmbeddings: boolean;
  readonly expertCount: number;
  readonly topK: number;
  readonly expertSize: number;
  /** Routing weights are divided by their sum over the top-k. */
  readonly normTopK: boolean;
  /** Inner width of the shared expert; 0 for none. */
  readonly sharedExpertSize: number;
  /** The shared expert's output is multiplied by sigmoid(x . w). */
  readonly sharedExpertGate: boolean;
  /** Inner width of the FFN of layers without experts; 0 when there are none. */
  readonly denseFfnSize: number;
  /** One entry a layer. */
  readonly layerKinds: readonly ('moe' | 'dense')[];
  /** Attention sees this many positions back at most; null for all. */
  readonly slidingWindow: number | null;
}

/** Code tables of levels 2, 3 and 4 (4, 8 and 16 int8 values) and the residual of level 8: see formats.h. */
export interface PlaneTables {
  readonly t2: readonly number[];
  readonly t3: readonly number[];
  readonly t4: readonly number[];
  /** Level 8 is s * (2 * t4[c] + step * r + offset) / 2. */
  readonly residualStep: number;
  readonly residualOffset: number;
}

export const DEFAULT_TABLES: PlaneTables = {
  t2: [-88, -27, 18, 69],
  t3: [-115, -72, -41, -16, 7, 30, 58, 92],
  t4: [-127, -105, -81, -64, -48, -35, -22, -10, 2, 13, 25, 37, 51, 66, 85, 104],
  residualStep: 3,
  residualOffset: -23,
};

/**
 * Tables for codes whose errors are fed back. Feedback chooses codes away from the nearest, so that values of one cell
 * spread further: refitted by least squares under the covariance of inputs, in turn with the choice of codes, on the
 * bundled model. The table of 16 came back as it was.
 */
export const FEEDBACK_TABLES: PlaneTables = {
  ...DEFAULT_TABLES,
  t2: [-93, -30, 19, 73],
  t3: [-112, -75, -40, -17, 8, 30, 60, 91],
};

/** Where the parts of one expert's record lie: computed from the sizes alone, see plane-geometry.ts. */
export interface PlaneGeometry {
  /** Bytes of the scale region, a multiple of 4096: first in the record. */
  readonly scaleBytes: number;
  /** Bytes of one bit of one expert, a multiple of 4096; bit i starts at scaleBytes + i * bitBytes. */
  readonly bitBytes: number;
  /** 4 or 8: bits stored per weight. */
  readonly bitsStored: number;
  readonly recordBytes: number;
  /** Planes in file order: base (2 bits and scales), then 1, 1 and optionally 4 bits. */
  readonly planes: readonly { readonly bits: number; readonly offset: number; readonly bytes: number }[];
}

export interface DenseTensorEntry {
  readonly kind: 'q4' | 'q6' | 'q8' | 'f32';
  readonly rows: number;
  readonly cols: number;
  /** Offset from the start of dense.safetensors' file, and length. */
  readonly offset: number;
  readonly bytes: number;
  readonly crc32c: number;
}

export interface Manifest {
  readonly format: typeof FORMAT_NAME;
  readonly version: number;
  readonly name: string;
  /** Where it came from, e.g. "safetensors F16", and what made it. */
  readonly source: string;
  readonly architecture: Architecture;
  readonly levels: readonly number[];
  readonly defaultLevel: number;
  readonly tables: PlaneTables;
  readonly geometry: PlaneGeometry;
  readonly dense: {
    readonly file: 'dense.safetensors';
    readonly bytes: number;
    readonly tensors: Readonly<Record<string, DenseTensorEntry>>;
  };
  readonly experts: {
    readonly file: 'experts.bin';
    readonly bytes: number;
    /** CRC-32C of every plane, base64 of uint32 little-endian [moeLayer, expert, plane]. */
    readonly checksums: string;
  };
  /** Files beside the manifest; both always present. Chat template and special tokens are in the second. */
  readonly tokenizer: { readonly file: 'tokenizer.json'; readonly configFile: 'tokenizer_config.json' };
  readonly generation: {
    readonly eosTokenIds: readonly number[];
    readonly bosTokenId: number | null;
    readonly addBos: boolean;
  };
  readonly calibration: null | { readonly tokens: number; readonly text: string };
  /** Mean weighted relative squared error per level, over all experts. */
  readonly quality: { readonly relativeError: Readonly<Record<string, number>> };
  /** What `routed` mode goes by; absent where nobody has measured it. */
  readonly precision?: PrecisionProfile;
  /** True for scripts/synth models: random weights, for speed only. */
  readonly synthetic?: boolean;
}

/** How much bits matter, measured on calibration text: see src/experts/precision.ts for the rule. */
export interface PrecisionProfile {
  readonly tokens: number;
  /** By MoE layer: divergence per squared routing weight and unit of relative squared error; above 0. */
  readonly sensitivities: readonly number[];
  /** Ascending quantiles of sensitivity * weight^2 over (layer, token, expert). */
  readonly importances: readonly number[];
}

/**
 * Canonical dense tensor names, L the layer number; matrices are named q8 and may be q4 or q6, each on its own:
 *   embedding [vocab, hidden] q8; head [vocab, hidden] q8 (absent when tied); final_norm [1, hidden] f32
 *   layers.L.attn_norm, layers.L.ffn_norm [1, hidden] f32
 *   layers.L.q [heads * headDim, hidden], .k, .v [kvHeads * headDim, hidden], .o [hidden, heads * headDim] q8
 *   layers.L.q_bias, .k_bias, .v_bias [1, n] f32; layers.L.q_norm, .k_norm [1, headDim or n] f32
 *   layers.L.router [experts, hidden] f32
 *   layers.L.shared_gate, .shared_up [sharedExpertSize, hidden], .shared_down [hidden, sharedExpertSize] q8
 *   layers.L.shared_router [1, hidden] f32 (the sigmoid gate)
 *   layers.L.ffn_gate, .ffn_up, .ffn_down: the FFN of a dense layer, q8
 */
export type DenseTensorName = string;
