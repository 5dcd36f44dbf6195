// Runs the tests: proclock_test [words...], where each word picks the tests whose file or name contains it.
//
// Those that simulate the machine (sim_*) need nothing of it but a processor: they run beside the others, which run one after
// the other, so that none of them has to share the machine with another one of its kind.
#include <dirent.h>
#include <fcntl.h>

#include <deque>

#include "harness.h"

namespace harness {

Test* first = nullptr;
Test** last = &first;

namespace {

bool wanted(const Test& test, int argc, char** argv) {
  for (int i = 1; i < argc; i++) {
    if (strstr(test.name, argv[i]) != nullptr || strstr(test.file, argv[i]) != nullptr) return true;
  }
  return argc < 2;
}

// Whatever a test left behind, if it failed.
int remove_segments(pid_t pid) {
  const std::string prefix = Segment::prefix(pid).substr(1);
  int removed = 0;
  DIR* folder = opendir("/dev/shm");
  if (folder == nullptr) return 0;
  while (const dirent* entry = readdir(folder)) {
    if (strncmp(entry->d_name, prefix.c_str(), prefix.size()) != 0) continue;
    removed += shm_unlink((std::string("/") + entry->d_name).c_str()) == 0;
  }
  closedir(folder);
  return removed;
}

enum class Result { kPassed, kFailed, kSkipped };

// A test that runs, in a process of its own.
struct Run {
  const Test* test = nullptr;
  pid_t pid = 0;
  uint64_t begun = 0;
  FILE* output = nullptr;  // nullptr: what it writes is shown at once
};

Run begin(const Test* test, bool alone) {
  Run run;
  run.test = test;
  run.begun = now_ms();
  if (!alone) {
    run.output = tmpfile();
    CHECK(run.output != nullptr);
    CHECK_EQ(fcntl(fileno(run.output), F_SETFD, FD_CLOEXEC), 0);
  }
  run.pid = start([&] {
    if (run.output != nullptr) {
      for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) CHECK_EQ(dup2(fileno(run.output), fd), fd);
      CHECK_EQ(fclose(run.output), 0);
    }
    alarm(test->watchdog_s);
    test->run();
  });
  return run;
}

// Shows what a test wrote.
void show(FILE* output) {
  rewind(output);
  char chunk[4096];
  while (const size_t size = fread(chunk, 1, sizeof chunk, output)) {
    CHECK_EQ(fwrite(chunk, 1, size, stdout), size);
  }
  CHECK_EQ(fclose(output), 0);
}

Result finish(const Run& run, int status) {
  const Test& test = *run.test;
  const int left = remove_segments(run.pid);
  const bool skipped = WIFEXITED(status) && WEXITSTATUS(status) == kSkipped && left == 0;
  const bool passed = status == 0 && left == 0;
  if (run.output != nullptr) show(run.output);
  printf("%s %s (%llu ms)\n",
         passed    ? "ok  "
         : skipped ? "skip"
                   : "FAIL",
         test.name, static_cast<unsigned long long>(now_ms() - run.begun));
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
    printf("  watchdog: not done after %u s\n", test.watchdog_s);
  } else if (WIFSIGNALED(status)) {
    printf("  ended by signal %d\n", WTERMSIG(status));
  } else if (status != 0 && !skipped) {
    printf("  exit code %d\n", WEXITSTATUS(status));
  } else if (left != 0) {
    printf("  left %d segments behind\n", left);
  }
  fflush(stdout);
  return passed ? Result::kPassed : skipped ? Result::kSkipped : Result::kFailed;
}

bool simulates(const Test& test) { return strstr(test.file, "/sim_") != nullptr; }

class Runner {
 public:
  Runner(int argc, char** argv) {
    for (const Test* test = first; test != nullptr; test = test->next) {
      if (wanted(*test, argc, argv)) (simulates(*test) ? simulated_ : real_).push_back(test);
    }
    alone_ = real_.size() + simulated_.size() <= 1;
  }

  void run() {
    Run runs[2];
    const size_t slots = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 2 : 1;
    for (;;) {
      for (size_t slot = 0; slot < slots; slot++) {
        if (runs[slot].test != nullptr) continue;
        if (const Test* test = next(slot)) runs[slot] = begin(test, alone_);
      }
      if (runs[0].test == nullptr && runs[1].test == nullptr) return;
      int status = 0;
      const pid_t pid = waitpid(-1, &status, 0);
      CHECK(pid > 0);
      for (Run& run : runs) {
        if (run.test == nullptr || run.pid != pid) continue;
        counts_[static_cast<int>(finish(run, status))]++;
        run = Run();
      }
    }
  }

  int count(Result result) const { return counts_[static_cast<int>(result)]; }

 private:
  // The first slot is that of the real ones, and helps with the others when they are done.
  const Test* next(size_t slot) {
    std::deque<const Test*>& tests = slot == 0 && !real_.empty() ? real_ : simulated_;
    if (tests.empty()) return nullptr;
    const Test* test = tests.front();
    tests.pop_front();
    return test;
  }

  std::deque<const Test*> real_, simulated_;
  bool alone_ = false;
  int counts_[3] = {};
};

}  // namespace
}  // namespace harness

int main(int argc, char** argv) {
  using harness::Result;
  harness::Runner runner(argc, argv);
  runner.run();
  if (runner.count(Result::kSkipped) > 0) printf("%d skipped\n", runner.count(Result::kSkipped));
  printf("%d passed, %d failed\n", runner.count(Result::kPassed), runner.count(Result::kFailed));
  return runner.count(Result::kFailed) == 0 ? 0 : 1;
}
