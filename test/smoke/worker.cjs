'use strict';
// Takes the lock, says so, and keeps it.
const { parentPort, workerData } = require('node:worker_threads');
const { SharedLock } = require('proclock');

const guard = new SharedLock('smoke', { namespace: workerData }).tryExclusive();
parentPort.postMessage(guard !== null);
parentPort.on('message', () => guard.release());
