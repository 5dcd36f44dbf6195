// Process warnings.
import { startSoon } from './clock';

/**
 * Warns. A host may have put something in the place of `process.emitWarning` that throws: that is nothing for whoever is told of
 * a grant or a timeout at this moment, and is thrown in a turn of its own.
 */
export function warn(message: string, code: string): void {
  try {
    process.emitWarning(message, { type: 'Warning', code });
  } catch (error) {
    startSoon(() => {
      throw error;
    });
  }
}
