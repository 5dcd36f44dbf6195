'use strict';
// Where segments of this user are.
const { execFileSync } = require('node:child_process');

module.exports =
  process.platform === 'darwin'
    ? execFileSync('getconf', ['DARWIN_USER_CACHE_DIR'], { encoding: 'utf8' }).trim()
    : '/dev/shm';
