{
  # The targets are in a file of their own, because the published package must not have a binding.gyp: npm would compile
  # it on every `npm ci`, "gypfile": false or not, as a lock file does not record that field
  # (https://github.com/npm/cli/issues/9837).
  "includes": ["proclock.gypi"]
}
