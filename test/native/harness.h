// What the native tests are written in: TEST("a sentence") { ... CHECK(...) ... }
//
// Every test runs in a process of its own, in order, with a watchdog. A check that fails ends the process that it is in;
// a child's failure reaches its test through its exit code (join_ok). Segments are named after the test's process, and
// the runner removes what a test left. Children die with the process that started them.
#pragma once

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <string>

namespace harness {

constexpr unsigned kWatchdogS = 60;
// Instrumented code takes its time, and that is not what is tested: the watchdog is for what never ends.
// A build for macOS proves each segment anew, with a thread (File::prove).
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(PROCLOCK_PORTABLE)
constexpr unsigned kSlower = 5;
#else
constexpr unsigned kSlower = 1;
#endif
constexpr int kFailed = 99;   // exit code of a process in which a check failed
constexpr int kSkipped = 98;  // of a test that this build, or this machine, can not run

struct Test {
  const char* name;
  const char* file;
  unsigned watchdog_s;
  void (*run)();
  Test* next;
};
extern Test* first;
extern Test** last;

struct Registration {
  Test test;
  Registration(const char* name, const char* file, void (*run)(), unsigned watchdog_s = kWatchdogS)
      : test{name, file, watchdog_s * kSlower, run, nullptr} {
    *last = &test;
    last = &test.next;
  }
};

#define HARNESS_JOIN2(a, b) a##b
#define HARNESS_JOIN(a, b) HARNESS_JOIN2(a, b)
// TEST("a sentence"), or TEST("a sentence", watchdog_s)
#define TEST(...) HARNESS_TEST(__VA_ARGS__, harness::kWatchdogS, 0)
#define HARNESS_TEST(name, watchdog_s, ...)                           \
  static void HARNESS_JOIN(test_, __LINE__)();                        \
  static harness::Registration HARNESS_JOIN(registration_, __LINE__)( \
      name, __FILE__, HARNESS_JOIN(test_, __LINE__), watchdog_s);     \
  static void HARNESS_JOIN(test_, __LINE__)()

#ifdef PROCLOCK_COVERAGE
extern "C" void __gcov_dump();
#endif
// Ends the process at once. Counts of coverage are otherwise written by exit().
[[noreturn]] inline void end(int code) {
  fflush(nullptr);
#ifdef PROCLOCK_COVERAGE
  __gcov_dump();
#endif
  _exit(code);
}

// What the running process is at, for the message of a check that fails.
inline const char* context = "";
inline int64_t context_step = -1;

[[noreturn]] inline void fail(const char* file, int line, const char* what) {
  const char* name = strrchr(file, '/');
  fprintf(stderr, "  %s:%d: %s", name == nullptr ? file : name + 1, line, what);
  if (context[0] != '\0') fprintf(stderr, " [%s, step %lld]", context, static_cast<long long>(context_step));
  fprintf(stderr, " (pid %d)\n", getpid());
  fflush(nullptr);
  _exit(kFailed);
}

template <class A, class B>
void check_equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (a == b) return;
  char what[512];
  snprintf(what, sizeof what, "%s: %lld is not %lld", text, static_cast<long long>(a),
           static_cast<long long>(b));
  fail(file, line, what);
}

// At the beginning of a test of what Linux alone has: in a build for another system it is skipped, and counted as such.
#if defined(__APPLE__) || defined(PROCLOCK_PORTABLE)
#define HARNESS_LINUX 0
#else
#define HARNESS_LINUX 1
#endif
#define LINUX_ONLY(reason)                 \
  do {                                     \
    if (!HARNESS_LINUX) {                  \
      printf("  skipped: %s\n", (reason)); \
      harness::end(harness::kSkipped);     \
    }                                      \
  } while (0)

#define CHECK(condition)                                             \
  do {                                                               \
    if (!(condition)) harness::fail(__FILE__, __LINE__, #condition); \
  } while (0)
// For numbers and enumerations.
#define CHECK_EQ(a, b) harness::check_equal(a, b, #a " == " #b, __FILE__, __LINE__)

inline uint64_t now_ms() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1000000;
}

// From the environment.
inline uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = getenv(variable);
  return text == nullptr ? otherwise : strtoull(text, nullptr, 10);
}

constexpr uint64_t kPatienceMs = 20000;  // for what has to happen at all

// Polls a condition; false: it did not come true within the patience that a test has.
template <class Condition>
bool eventually(Condition condition) {
  const uint64_t deadline = now_ms() + kPatienceMs;
  while (!condition()) {
    if (now_ms() > deadline) return false;
    usleep(200);
  }
  return true;
}

// A zeroed object that all children of this process share with it.
template <class T>
T* shared() {
  void* page = mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED);
  return new (page) T();
}

// A child process that runs the function and ends with code 0.
template <class Function>
pid_t start(Function function) {
  fflush(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kFailed);
  function();
  end(0);
}

inline int join(pid_t pid) {
  int status = 0;
  CHECK(waitpid(pid, &status, 0) == pid);
  return status;
}
inline bool ended_well(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }
inline bool killed(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL; }
#define JOIN_OK(...) \
  harness::check_equal(harness::join(__VA_ARGS__), 0, "wait status of a child", __FILE__, __LINE__)
#define KILL_AND_JOIN(pid)                          \
  do {                                              \
    const pid_t victim_ = (pid);                    \
    CHECK_EQ(kill(victim_, SIGKILL), 0);            \
    CHECK(harness::killed(harness::join(victim_))); \
  } while (0)

// A fresh segment name; the segment goes with the object.
class Segment {
 public:
  Segment() {
    static int count = 0;
    name_ = prefix(getpid()) + std::to_string(count++);
    owner_ = getpid();
  }
  ~Segment() {
    if (owner_ == getpid()) shm_unlink(name_.c_str());
  }
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;
  const char* name() const { return name_.c_str(); }
  std::string path() const { return "/dev/shm" + name_; }
  static std::string prefix(pid_t pid) { return "/proclock-test-" + std::to_string(pid) + "-"; }

 private:
  std::string name_;
  pid_t owner_;
};

}  // namespace harness
