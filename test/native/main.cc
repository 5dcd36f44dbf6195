// Runs the tests in order: proclock_test [words...], where each word picks the tests whose file or name contains it.
#include <dirent.h>

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

Result run(const Test& test) {
  const uint64_t begun = now_ms();
  const pid_t pid = start([&] {
    alarm(test.watchdog_s);
    test.run();
  });
  const int status = join(pid);
  const int left = remove_segments(pid);
  const bool skipped = WIFEXITED(status) && WEXITSTATUS(status) == kSkipped && left == 0;
  const bool passed = status == 0 && left == 0;
  printf("%s %s (%llu ms)\n",
         passed    ? "ok  "
         : skipped ? "skip"
                   : "FAIL",
         test.name, static_cast<unsigned long long>(now_ms() - begun));
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
    printf("  watchdog: not done after %u s\n", test.watchdog_s);
  } else if (WIFSIGNALED(status)) {
    printf("  ended by signal %d\n", WTERMSIG(status));
  } else if (status != 0 && !skipped) {
    printf("  exit code %d\n", WEXITSTATUS(status));
  } else if (left != 0) {
    printf("  left %d segments behind\n", left);
  }
  return passed ? Result::kPassed : skipped ? Result::kSkipped : Result::kFailed;
}

}  // namespace
}  // namespace harness

int main(int argc, char** argv) {
  int counts[3] = {};
  for (const harness::Test* test = harness::first; test != nullptr; test = test->next) {
    if (harness::wanted(*test, argc, argv)) counts[static_cast<int>(harness::run(*test))]++;
  }
  const auto count = [&](harness::Result result) { return counts[static_cast<int>(result)]; };
  if (count(harness::Result::kSkipped) > 0) printf("%d skipped\n", count(harness::Result::kSkipped));
  printf("%d passed, %d failed\n", count(harness::Result::kPassed), count(harness::Result::kFailed));
  return count(harness::Result::kFailed) == 0 ? 0 : 1;
}
