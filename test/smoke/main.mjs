// The suite with the package as an ES module sees it.
import * as proclock from 'proclock';
import suite from './suite.cjs';

suite.run(proclock);
