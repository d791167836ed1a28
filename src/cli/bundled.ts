/** The small model that ships with the package, so that the product works at once and offline. */
import { fileURLToPath } from 'node:url';

export const BUNDLED_MODEL = fileURLToPath(new URL('../../models/pocket.moe', import.meta.url));
