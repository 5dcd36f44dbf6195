'use strict';
// To be preloaded (`--require`, also by way of NODE_OPTIONS): programs that are written for users, and so use the default
// namespace, have one of their own in a test. In their child processes and worker threads, too.
const options = require('../../dist/common/options');

const { checkNamespace } = options;
options.checkNamespace = (namespace) => checkNamespace(namespace ?? process.env.PROCLOCK_TEST_NAMESPACE);
