/** Errors of formats: all of them name the field of the request, and the place in it. */
import { MoestroError } from '../errors.js';

/**
 * @param place in the format: a JSON pointer such as "#/properties/a", or "character 12".
 * @param found what stands there. @param needed what can be used instead.
 */
export function refuseFormat(place: string, found: string, needed: string): MoestroError {
  return new MoestroError('UNSUPPORTED_FORMAT', `Cannot use the format at ${place}: found ${found}, needed ${needed}`, {
    place,
  });
}
