// What the command says of itself.

const RUN = `usage: proclock run [options] NAME [--] COMMAND [ARG...]

Runs COMMAND while it holds the lock NAME, which programs and other shells share.

  -s, --shared               hold it shared (default: exclusively)
  -n, --nonblock             do not wait; the same as -w 0
  -w, --timeout SECONDS      wait for at most so long
  -E, --conflict-exit-code N exit code if the lock was not to be had, 0 to 255 (default: 75)
      --fair                 strictly first in, first out
      --namespace NS         of the lock (default: default)
      --group G              share the namespace with the members of a group
      --postgres URL         the locks of a PostgreSQL server, in place of this machine's
      --etcd ENDPOINTS       the locks of an etcd cluster (host:port, separated by commas)
  -v, --verbose              say when the lock was acquired and released

COMMAND has PROCLOCK_NAME, PROCLOCK_NAMESPACE, PROCLOCK_MODE and PROCLOCK_TOKEN in its environment, and
PROCLOCK_ABANDONED (a pid) if an exclusive holder died and none has ended with 0 since: what it did may be half done.

Signals that end programs go on to COMMAND. If this process is killed, so is COMMAND, but not what COMMAND has started.

Exit code: that of COMMAND, or 128 + the signal that ended it. 64: wrong usage. 69: no native part, or the server is
not to be reached. 74: the hold was lost. 75: not to be had in time (a COMMAND that exits with 75, or with what -E
says, looks the same). 77: not allowed. 126: COMMAND can not be executed. 127: it was not found. 70: anything else.
`;

const LS = `usage: proclock ls [--json] [--namespace NS] [--postgres URL | --etcd ENDPOINTS] [NAME...]

Shows every lock that is held or waited for, or whose last holder died, in every namespace of this user: who holds it,
who waits, since when, what program that is, whether it is stopped, and cycles of waits.

      --json                 an array of { namespace, name, held, pending, abandoned, deadlock }
      --namespace NS         of this namespace alone
      --postgres URL         of a PostgreSQL server, in place of this machine's memory
      --etcd ENDPOINTS       of an etcd cluster
`;

const WATCH = `usage: proclock watch [--json] [--namespace NS] [--postgres URL | --etcd ENDPOINTS] [NAME...]

What \`proclock ls\` shows, refreshed in place; plain lines once a second where the output is not a terminal. Ends with 0
when its output is closed, and with 130 on ^C.
`;

const DOCTOR = `usage: proclock doctor

Looks for what is wrong on this machine: shared memory, limits, containers, logind, the binary. Exit code 1 if something is.
`;

const PRUNE = `usage: proclock prune [--dry-run]

Removes the namespaces that no process is attached to, and prints them. Marks of dead holders go with them.

      --dry-run              only print them
`;

export const HELP: Record<string, string> = { run: RUN, ls: LS, watch: WATCH, doctor: DOCTOR, prune: PRUNE };

export const GENERAL = `usage: proclock COMMAND

  run NAME COMMAND...   run a command while a lock is held
  ls                    who holds which lock, and who waits for it
  watch                 the same, refreshed in place
  doctor                what is wrong on this machine
  prune                 remove namespaces that nobody uses

proclock help COMMAND tells more. proclock --version prints the version.
`;
