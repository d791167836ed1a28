/**
 * What a request becomes: checked against what the engine can run, then a sequence of its own, which waits for its turn in
 * open-sequences.ts. All three kinds are prompts; they differ in what is wanted after the prompt's tokens.
 */
import { Formats, type Matcher } from '../constrain/matcher.js';
import { MoestroError } from '../errors.js';
import { checkDrawing, checkEvaluated, checkTokens } from './check-request.js';
import type { EngineParts } from './engine-parts.js';
import { Evaluation } from './evaluation.js';
import type { KvBlocks } from './kv-blocks.js';
import type { LogitScan } from './logit-scan.js';
import type { MemoryKeeper } from './memory-keeper.js';
import { KV_BLOCK_TOKENS } from './memory-plan.js';
import { Policies } from './policies.js';
import { PooledStates } from './pooled-states.js';
import { Sampler, SamplerScratch } from './sampler.js';
import { Sequence } from './sequence.js';
import type { EmbedOptions, EvaluateOptions, GenerateRequest } from './types.js';

export class SequenceMaker {
  readonly #parts: EngineParts;
  readonly #blocks: KvBlocks;
  readonly #keeper: MemoryKeeper | null;
  readonly #policies: Policies;
  readonly #formats: Formats | null;
  readonly #scratch: SamplerScratch;

  /**
   * @param blocks where each sequence gets a block table, empty at first.
   * @param keeper knows how much of the context is afforded while memory is short; null: all of it, always.
   */
  constructor(parts: EngineParts, blocks: KvBlocks, keeper: MemoryKeeper | null, scan: LogitScan) {
    this.#parts = parts;
    this.#blocks = blocks;
    this.#keeper = keeper;
    this.#policies = new Policies(parts.model.precision, parts.mode, parts.meanBits);
    this.#formats = parts.tokenBytes === undefined ? null : new Formats(parts.tokenBytes);
    this.#scratch = new SamplerScratch(parts.model.architecture.vocabSize, scan);
  }

  /** Positions of one sequence at most: fewer while memory is short. */
  get contextLength(): number {
    const blocks = this.#keeper?.kvAfforded ?? this.#blocks.total;
    return Math.min(this.#parts.memory.plan.contextLength, blocks * KV_BLOCK_TOKENS);
  }

  /** @throws {MoestroError} INVALID_REQUEST, CONTEXT_LENGTH_EXCEEDED. */
  toGenerate(id: number, request: GenerateRequest): Sequence {
    const limits = this.#limits();
    checkTokens(request.promptIds, limits.contextLength - 1, limits);
    checkDrawing(request);
    const room = limits.contextLength - request.promptIds.length;
    return new Sequence({
      id,
      promptIds: request.promptIds,
      table: this.#blocks.open(),
      policy: this.#policies.of(request.precision),
      maxTokens: Math.min(request.maxTokens ?? room, room),
      stopTokenIds: new Set(request.stopTokenIds),
      minTokens: request.minTokens,
      sampler: new Sampler(request.sampling, this.#parts.drawSeed(), this.#scratch),
      matcher: this.#matcherOf(request),
      mayJump: request.sampling.topLogprobs === null,
      evaluation: null,
      promptLogprobs: request.promptLogprobs,
      priority: request.priority,
      client: request.client,
      usesPrefixes: request.usesPrefixes,
      submittedMs: this.#parts.now(),
    });
  }

  /** Throws as `toGenerate`. The logits are memory of this process that the keeper must not take for Node.js's own. */
  toEvaluate(id: number, tokenIds: readonly number[], options: EvaluateOptions): Sequence {
    const limits = this.#limits();
    checkTokens(tokenIds, limits.contextLength, limits);
    const from = options.from ?? 0;
    this.#keeper?.ignoreRuntime();
    checkEvaluated(from, tokenIds.length, limits);
    return new Sequence({
      id,
      promptIds: tokenIds,
      table: this.#blocks.open(),
      policy: this.#policies.of(options.precision),
      maxTokens: 0,
      stopTokenIds: new Set(),
      sampler: null,
      matcher: null,
      mayJump: false,
      evaluation: new Evaluation(from, tokenIds.length - from, limits.vocabSize),
      submittedMs: this.#parts.now(),
    });
  }

  /** Throws as `toGenerate`. */
  toEmbed(id: number, tokenIds: readonly number[], { pooling, precision }: EmbedOptions): Sequence {
    const limits = this.#limits();
    checkTokens(tokenIds, limits.contextLength, limits);
    return new Sequence({
      id,
      promptIds: tokenIds,
      table: this.#blocks.open(),
      policy: this.#policies.of(precision),
      maxTokens: 0,
      stopTokenIds: new Set(),
      sampler: null,
      matcher: null,
      mayJump: false,
      evaluation: null,
      pooled: new PooledStates(pooling, tokenIds.length, this.#parts.model.architecture.hiddenSize),
      submittedMs: this.#parts.now(),
    });
  }

  #limits(): { readonly vocabSize: number; readonly contextLength: number } {
    return { vocabSize: this.#parts.model.architecture.vocabSize, contextLength: this.contextLength };
  }

  #matcherOf({ format }: GenerateRequest): Matcher | null {
    if (format === undefined) return null;
    if (this.#formats !== null) return this.#formats.open(format);
    throw new MoestroError(
      'INVALID_REQUEST',
      'Cannot keep to a format: the engine was started without the bytes of its tokens',
    );
  }
}
