'use strict';
// The suite with the package as CommonJS sees it.
require('./suite.cjs').run(require('proclock'));
