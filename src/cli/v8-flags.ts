/**
 * Settings of the JavaScript engine that take effect in a process that runs already; imported before everything else.
 *
 * The young generation does not grow: it would double up to 16 MiB and keep what it has, and the memory budget covers
 * it. Measured on an idle `moestro serve` with the bundled model: resident memory 87 instead of 95 MB, and 158 instead
 * of 167 MB after 45 answers.
 */
import { setFlagsFromString } from 'node:v8';

setFlagsFromString('--semi-space-growth-factor=1');
