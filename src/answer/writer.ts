/** Tokens of an answer to its text, and tokens with their logprobs as they are reported. */
import type { TokenLogprob } from '../engine/types.js';
import { StopStrings } from '../text/stop-strings.js';
import type { TextModel } from '../text/types.js';
import type { AnswerOptions, Piece, PromptReport, ReportedToken, TokenReport } from './types.js';

/** The least logprob reported: clients choke on minus infinity and on null. */
const LOGPROB_FLOOR = -9999;

/** One answer on its way from token ids to text: owns the detokenizer, the stop strings and the tokens held back. */
export class AnswerWriter {
  isStopped = false;
  /** The stop text that was found. */
  stop: string | null = null;
  tokenCount = 0;
  /** Its time is over, and it holds a line break. */
  isLate = false;
  #text: TextModel;
  #detokenizer;
  #stops;
  #wantsReports;
  #minTokens;
  #predictMs;
  #now;
  #firstMs: number | null = null;
  #hasLine = false;
  /** Tokens not reported yet, each with where its text ends in the answer. */
  #held: { readonly report: TokenReport; readonly end: number }[] = [];
  #written = 0;
  #emitted = 0;

  constructor(text: TextModel, options: AnswerOptions, continuesText: boolean, now: () => number) {
    this.#text = text;
    this.#detokenizer = text.detokenizer({ continues: continuesText });
    this.#stops = options.stop.length > 0 ? new StopStrings(options.stop) : null;
    this.#wantsReports = options.sampling.topLogprobs !== null;
    this.#minTokens = options.minTokens ?? 0;
    this.#predictMs = options.predictMs ?? Number.POSITIVE_INFINITY;
    this.#now = now;
  }

  push(token: {
    readonly tokenId: number;
    readonly logprob: number | null;
    readonly topLogprobs: readonly { readonly tokenId: number; readonly logprob: number }[];
  }): Piece<'delta'> | null {
    this.tokenCount++;
    const piece = this.#detokenizer.push(token.tokenId);
    const begin = this.#written;
    this.#written += piece.length;
    const nowMs = this.#now();
    this.#firstMs ??= nowMs;
    this.#hasLine ||= piece.includes('\n');
    this.isLate = this.#hasLine && nowMs - this.#firstMs > this.#predictMs;
    if (this.#wantsReports) {
      const top = token.topLogprobs.map((other) => reported(this.#text, other.tokenId, other.logprob));
      const report = { ...reported(this.#text, token.tokenId, token.logprob ?? LOGPROB_FLOOR), begin, top };
      this.#held.push({ report, end: this.#written });
    }
    return this.#emit(piece);
  }

  /** What is left when the engine has ended the answer. */
  end(): Piece<'delta'> | null {
    const piece = this.#detokenizer.flush();
    this.#written += piece.length;
    const delta = this.#emit(piece, true);
    if (this.isStopped) return delta;
    const tokens = [...(delta?.tokens ?? []), ...this.#held.splice(0).map((held) => held.report)];
    const text = delta?.text ?? '';
    return text === '' && tokens.length === 0 ? null : { kind: 'delta', text, tokens, tokenCount: this.tokenCount };
  }

  #emit(piece: string, isLast = false): Piece<'delta'> | null {
    let text = piece;
    if (this.#stops !== null) {
      const result = this.#stops.push(piece, this.tokenCount > this.#minTokens);
      text = result.text;
      this.isStopped = result.stopped;
      this.stop ??= result.matched;
      if (isLast && !this.isStopped) text += this.#stops.flush();
    }
    this.#emitted += text.length;
    // A token is reported with the text it wrote; one whose text fell to a stop string is not.
    const tokens: TokenReport[] = [];
    while (this.#held.length > 0) {
      const first = this.#held[0]!;
      const isShown = first.end <= this.#emitted || (this.isStopped && first.report.begin < this.#emitted);
      if (!isShown) break;
      tokens.push(first.report);
      this.#held.shift();
    }
    return text === '' && tokens.length === 0 ? null : { kind: 'delta', text, tokens, tokenCount: this.tokenCount };
  }
}

/** The prompt's tokens as the answer's are told, with places in the prompt's text. */
export class PromptReporter {
  #text: TextModel;
  #detokenizer;
  #written = 0;

  constructor(text: TextModel) {
    this.#text = text;
    this.#detokenizer = text.detokenizer();
  }

  report(tokenId: number, logprob: number | null, topLogprobs: readonly TokenLogprob[]): PromptReport {
    const begin = this.#written;
    this.#written += this.#detokenizer.push(tokenId).length;
    const top = topLogprobs.map((other) => reported(this.#text, other.tokenId, other.logprob));
    const token = reported(this.#text, tokenId, logprob ?? LOGPROB_FLOOR);
    return { ...token, logprob: logprob === null ? null : token.logprob, begin, top };
  }
}

const reported = (text: TextModel, id: number, logprob: number): ReportedToken => ({
  text: text.tokenText(id),
  bytes: [...text.tokenBytes(id)],
  logprob: Math.max(logprob, LOGPROB_FLOOR),
});
