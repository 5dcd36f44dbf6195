// proclock_bench_processes SEGMENT NAME COUNT: that many processes that have the segment mapped and the lock open, and do
// nothing. Prints "ready" when all have, and ends, with all of them, when its standard input does. Such a process costs
// next to nothing, and a thousand of them fit where a thousand Nodes do not.
#ifdef __linux__

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../../native/runtime/process.h"

namespace {

// In the child. Never returns.
void attend(const char* segment, const char* text, int ready, int end) {
  proclock::Report report = {};
  proclock::Client<proclock::System> client(
      proclock::Runtime<proclock::System>::get(), 0, &report, [](void*) {}, nullptr);
  proclock::Name name;
  name.bytes = text;
  name.size = static_cast<uint32_t>(strlen(text));
  proclock::OpenFailure failure;
  uint32_t id;
  const proclock::Status status = client.open_lock(segment, -1, name, &id, &failure);
  const char result = static_cast<char>(status);
  if (write(ready, &result, 1) != 1) _exit(1);
  char byte;
  while (read(end, &byte, 1) < 0) {
  }
  _exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int count = atoi(argv[3]);
  int ready[2];
  if (pipe(ready) != 0) return 1;
  for (int i = 0; i < count; i++) {
    const pid_t child = fork();
    if (child < 0) {
      perror("fork");
      return 1;
    }
    if (child == 0) attend(argv[1], argv[2], ready[1], STDIN_FILENO);
    char status;
    if (read(ready[0], &status, 1) != 1 || status != 0) {
      fprintf(stderr, "process %d could not enter: status %d\n", i, status);
      return 1;
    }
  }
  printf("ready\n");
  fflush(stdout);
  while (wait(nullptr) > 0) {
  }
  return 0;
}

#else

int main() { return 2; }

#endif  // __linux__
