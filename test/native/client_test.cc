// The client without Node: waits of several threads and processes, told through their callbacks, on two native threads.
#include <dirent.h>
#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "../../native/runtime.h"
#include "harness.h"
#include "interpose.h"

namespace {

using proclock::Client;
using proclock::Name;
using proclock::Status;

constexpr uint32_t kExclusive = Client::kKeyExclusive;
constexpr uint32_t kFair = Client::kKeyFair;

// A thread's event loop in small: whoever notifies makes turn() return.
struct Loop {
  explicit Loop(uint32_t thread) : client(thread, &report, notify, this) {}

  static void notify(void* self) {
    auto* loop = static_cast<Loop*>(self);
    std::lock_guard<std::mutex> hold(loop->mutex);
    loop->told = true;
    loop->condition.notify_one();
  }
  // Sleeps until told; false: nobody told anything in the time that a test has.
  bool turn() {
    std::unique_lock<std::mutex> hold(mutex);
    if (report.ready != 0) return true;
    const bool in_time =
        condition.wait_for(hold, std::chrono::milliseconds(harness::kPatienceMs), [this] { return told; });
    told = false;
    return in_time;
  }

  uint32_t open(const char* segment, const std::string& name) {
    uint32_t id = 0;
    proclock::OpenFailure failure;
    const Name as_name = {name.data(), static_cast<uint32_t>(name.size()), false};
    CHECK_EQ(client.open_lock(segment, -1, as_name, &id, &failure), Status::kOk);
    return id << Client::kKeyBits;
  }
  // Reacts to what it is told, until the hold is granted.
  void await(uint32_t hold) {
    for (;;) {
      CHECK(turn());
      if (report.owed != 0) client.settle_owed();
      for (const uint32_t ready : client.take_ready()) {
        const Status status = client.react(ready);
        if (status == Status::kOk && ready == hold) return;
        CHECK_EQ(status, Status::kAgain);
      }
    }
  }
  // The same, until so many are.
  void await_grants(size_t count) {
    for (size_t granted = 0; granted < count;) {
      CHECK(turn());
      if (report.owed != 0) client.settle_owed();
      for (const uint32_t ready : client.take_ready()) granted += ok(client.react(ready));
    }
  }
  uint32_t acquire(uint32_t key) {
    const int32_t tried = client.try_acquire(key);
    if (tried >= 0) return static_cast<uint32_t>(tried);
    CHECK_EQ(tried, static_cast<int32_t>(Status::kBusy));
    int32_t hold = client.enqueue(key, true);
    while (hold == static_cast<int32_t>(Status::kStalled)) hold = client.enqueue(key, true);
    CHECK(hold >= 0);
    if (report.granted == 0) await(static_cast<uint32_t>(hold));
    return static_cast<uint32_t>(hold);
  }
  void release(uint32_t hold) {
    CHECK_EQ(client.release(hold), Status::kOk);
    if (report.owed != 0) client.settle_owed();
  }

  std::mutex mutex;
  std::condition_variable condition;
  bool told = false;
  Client::Report report = {};
  Client client;
};

template <class Function>
pthread_t thread(Function* function) {
  pthread_t id;
  CHECK_EQ(pthread_create(
               &id, nullptr,
               [](void* f) -> void* {
                 (*static_cast<Function*>(f))();
                 return nullptr;
               },
               function),
           0);
  return id;
}

int native_threads() {
  int count = 0;
  DIR* tasks = opendir("/proc/self/task");
  CHECK(tasks != nullptr);
  while (const dirent* entry = readdir(tasks)) {
    if (entry->d_name[0] == '.') continue;
    char path[300];
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
    FILE* file = fopen(path, "r");
    char comm[32] = "";
    if (file != nullptr && fgets(comm, sizeof comm, file) != nullptr)
      count += strncmp(comm, "proclock-", 9) == 0;
    if (file != nullptr) fclose(file);
  }
  closedir(tasks);
  return count;
}

int open_files(const char* segment) {
  int count = 0;
  DIR* files = opendir("/proc/self/fd");
  CHECK(files != nullptr);
  while (const dirent* entry = readdir(files)) {
    char path[300], target[300] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
    if (readlink(path, target, sizeof target - 1) > 0) count += strstr(target, segment) != nullptr;
  }
  closedir(files);
  return count;
}

TEST("an acquire that does not have to wait starts no thread") {
  harness::Segment segment;
  Loop loop(1);
  const uint32_t key = loop.open(segment.name(), "client");
  const int32_t hold = loop.client.try_acquire(key | kExclusive);
  CHECK(hold >= 0);
  CHECK_EQ(loop.client.try_acquire(key), static_cast<int32_t>(Status::kBusy));
  loop.release(static_cast<uint32_t>(hold));
  CHECK_EQ(native_threads(), 0);
  loop.client.close_lock(key >> Client::kKeyBits);
}

TEST("a release tells the waiter of another thread of this process, without a detour") {
  harness::Segment segment;
  Loop loop(1);
  const uint32_t key = loop.open(segment.name(), "client") | kExclusive;
  const uint32_t held = loop.acquire(key);
  std::atomic<int> waiting{0};
  std::atomic<int> granted{0};
  auto other = [&] {
    Loop mine(2);
    const uint32_t their_key = mine.open(segment.name(), "client") | kExclusive;
    const int32_t hold = mine.client.enqueue(their_key, true);
    CHECK(hold >= 0 && mine.report.granted == 0);
    waiting.store(1);
    mine.await(static_cast<uint32_t>(hold));
    granted.store(1);
    mine.release(static_cast<uint32_t>(hold));
  };
  const pthread_t id = thread(&other);
  CHECK(harness::eventually([&] { return waiting.load() == 1; }));
  CHECK_EQ(granted.load(), 0);
  loop.release(held);
  CHECK_EQ(pthread_join(id, nullptr), 0);
  CHECK_EQ(granted.load(), 1);
}

TEST("a release tells the waiting event loop of another process") {
  harness::Segment segment;
  struct Page {
    std::atomic<int> waiting{0};
  };
  Page* page = harness::shared<Page>();
  Loop* loop = new Loop(1);
  const uint32_t key = loop->open(segment.name(), "client") | kExclusive;
  const uint32_t held = loop->acquire(key);
  const pid_t child = harness::start([&] {
    Loop* mine = new Loop(1);
    const uint32_t their_key = mine->open(segment.name(), "client") | kExclusive;
    const int32_t hold = mine->client.enqueue(their_key, true);
    CHECK(hold >= 0 && mine->report.granted == 0);
    page->waiting.store(1);
    mine->await(static_cast<uint32_t>(hold));
    mine->release(static_cast<uint32_t>(hold));
  });
  CHECK(harness::eventually([&] { return page->waiting.load() == 1; }));
  loop->release(held);
  JOIN_OK(child);
}

TEST("an event loop that waits for a killed process is told, and learns whom it follows") {
  harness::Segment segment;
  struct Page {
    std::atomic<int> held{0};
  };
  Page* page = harness::shared<Page>();
  const pid_t holder = harness::start([&] {
    Loop* mine = new Loop(5);
    mine->acquire(mine->open(segment.name(), "client") | kExclusive);
    page->held.store(1);
    for (;;) pause();
  });
  CHECK(harness::eventually([&] { return page->held.load() == 1; }));
  Loop loop(1);
  const uint32_t key = loop.open(segment.name(), "client") | kExclusive;
  CHECK_EQ(loop.client.try_acquire(key), static_cast<int32_t>(Status::kBusy));
  const int32_t hold = loop.client.enqueue(key, true);
  CHECK(hold >= 0 && loop.report.granted == 0);
  KILL_AND_JOIN(holder);
  loop.await(static_cast<uint32_t>(hold));
  CHECK_EQ(loop.report.abandoned, 1);
  proclock::AbandonedInfo info;
  CHECK_EQ(loop.client.abandoned(static_cast<uint32_t>(hold), &info), Status::kOk);
  CHECK_EQ(info.pid, holder);
  CHECK_EQ(info.thread, 5u);
  loop.release(static_cast<uint32_t>(hold));
}

TEST(
    "waits in many threads, locks and namespaces need two native threads and a descriptor for each "
    "namespace") {
  harness::Segment segments[3];
  struct Shared {
    std::atomic<int> waiting{0};
    std::atomic<int> go{0};
  } shared;
  constexpr int kThreads = 4;
  Loop loop(0);
  std::vector<uint32_t> held;
  for (const auto& segment : segments) {
    for (int n = 0; n < 5; n++) {
      held.push_back(loop.acquire(loop.open(segment.name(), "lock " + std::to_string(n)) | kExclusive));
    }
  }
  std::atomic<uint32_t> number{0};
  auto waiter = [&] {
    Loop mine(number.fetch_add(1) + 1);
    std::vector<uint32_t> holds;
    for (const auto& segment : segments) {
      for (int n = 0; n < 5; n++) {
        const int32_t hold =
            mine.client.enqueue(mine.open(segment.name(), "lock " + std::to_string(n)), true);
        CHECK(hold >= 0);
        holds.push_back(static_cast<uint32_t>(hold));
      }
    }
    shared.waiting.fetch_add(1);
    mine.await_grants(holds.size());
    for (const uint32_t hold : holds) mine.release(hold);
  };
  std::vector<pthread_t> threads;
  for (int n = 0; n < kThreads; n++) threads.push_back(thread(&waiter));
  CHECK(harness::eventually([&] { return shared.waiting.load() == kThreads; }));
  CHECK_EQ(native_threads(), 2);
  for (const auto& segment : segments) CHECK_EQ(open_files(segment.name()), 1);
  for (const uint32_t hold : held) loop.release(hold);
  for (const pthread_t id : threads) CHECK_EQ(pthread_join(id, nullptr), 0);
  CHECK_EQ(native_threads(), 2);
}

TEST(
    "threads of several processes that hammer one lock through their event loops never meet, and all get "
    "through",
    120) {
  struct Page {
    std::atomic<int32_t> inside{0};
    std::atomic<uint32_t> violations{0};
    std::atomic<uint32_t> done{0};
  };
  harness::Segment segment;
  Page* page = harness::shared<Page>();
  constexpr int kProcesses = 3, kThreads = 3, kRounds = 3000;
  std::vector<pid_t> children;
  for (int p = 0; p < kProcesses; p++) {
    children.push_back(harness::start([&] {
      std::atomic<uint32_t> number{0};
      auto work = [&] {
        const uint32_t me = number.fetch_add(1);
        Loop mine(me);
        const uint32_t key = mine.open(segment.name(), "client") | (me == 0 ? kFair : 0);
        for (uint32_t round = 0; round < kRounds; round++) {
          const bool exclusive = (round + me) % 2 == 0;
          const uint32_t hold = mine.acquire(key | (exclusive ? kExclusive : 0));
          const int32_t step = exclusive ? 1000 : 1;
          const int32_t before = page->inside.fetch_add(step);
          if (exclusive ? before != 0 : before >= 1000) page->violations.fetch_add(1);
          page->inside.fetch_sub(step);
          mine.release(hold);
        }
        page->done.fetch_add(1);
      };
      std::vector<pthread_t> threads;
      for (int n = 0; n < kThreads; n++) threads.push_back(thread(&work));
      for (const pthread_t id : threads) CHECK_EQ(pthread_join(id, nullptr), 0);
      CHECK(native_threads() <= 2);
    }));
  }
  for (const pid_t child : children) JOIN_OK(child);
  CHECK_EQ(page->done.load(), static_cast<uint32_t>(kProcesses * kThreads));
  CHECK_EQ(page->violations.load(), 0u);
}

// ---- a poke that comes while its waiter is made known, or while the doorbell thread goes to sleep

// Holds up the other threads of this process where they have left the guard of a namespace.
class BehindTheGuard {
 public:
  explicit BehindTheGuard(const harness::Segment& segment) {
    proclock::OpenFailure failure;
    CHECK_EQ(proclock::Runtime::get().enter(segment.name(), -1, &space_, &failure), Status::kOk);
    interpose::turnstile.behind.store(&space_->arena().header().guard);
  }
  void await_one() {
    CHECK(harness::eventually([] { return interpose::turnstile.held_up.load() != 0; }));
  }
  void let_go() {
    interpose::turnstile.behind.store(nullptr);
    proclock::Runtime::get().exit(space_);
  }

 private:
  std::shared_ptr<proclock::Space> space_;
};

TEST("a poke that comes before its waiter is back from the queue is not lost") {
  harness::Segment segment;
  Loop loop(1);
  const uint32_t key = loop.open(segment.name(), "client") | kExclusive;
  const uint32_t held = loop.acquire(key);
  const int32_t first = loop.client.enqueue(key, true);
  CHECK(first >= 0 && loop.report.granted == 0);
  std::atomic<int> opened{0};
  std::atomic<int> may_wait{0};
  auto waiter = [&] {
    Loop mine(2);
    const uint32_t their_key = mine.open(segment.name(), "client") | kExclusive;
    opened.store(1);
    CHECK(harness::eventually([&] { return may_wait.load() == 1; }));
    const int32_t hold = mine.client.enqueue(their_key, true);
    CHECK(hold >= 0 && mine.report.granted == 0);
    mine.await(static_cast<uint32_t>(hold));
    mine.release(static_cast<uint32_t>(hold));
  };
  const pthread_t id = thread(&waiter);
  CHECK(harness::eventually([&] { return opened.load() == 1; }));
  BehindTheGuard place(segment);
  may_wait.store(1);
  CHECK(harness::eventually([&] {  // it is queued, and does not come back yet
    std::vector<proclock::HolderInfo> infos;
    CHECK_EQ(loop.client.query(key >> Client::kKeyBits, true, &infos), Status::kOk);
    return infos.size() == 3;
  }));
  loop.release(held);
  loop.await(static_cast<uint32_t>(first));
  loop.release(static_cast<uint32_t>(first));  // now it is poked
  place.let_go();
  CHECK_EQ(pthread_join(id, nullptr), 0);
}

// Another process that holds some locks in two namespaces, and releases them when it is told to.
struct Elsewhere {
  static constexpr int kLocks = 3;
  static constexpr int kSegmentOf[kLocks] = {0, 1, 0};
  struct Page {
    std::atomic<int> holds{0};
    std::atomic<bool> release[kLocks] = {};
    std::atomic<int> released{0};
    std::atomic<bool> end{false};
  };
  harness::Segment segments[2];
  Page* page = harness::shared<Page>();
  pid_t pid = harness::start([this] {
    Loop* mine = new Loop(1);
    uint32_t held[kLocks];
    for (int n = 0; n < kLocks; n++) held[n] = mine->acquire(open(n, *mine));
    page->holds.store(1);
    while (!page->end.load()) {
      for (int n = 0; n < kLocks; n++) {
        if (!page->release[n].exchange(false)) continue;
        mine->release(held[n]);
        page->released.fetch_add(1);
      }
      usleep(200);
    }
  });

  Elsewhere() {
    CHECK(harness::eventually([&] { return page->holds.load() == 1; }));
  }
  uint32_t open(int lock, Loop& loop) {
    return loop.open(segments[kSegmentOf[lock]].name(), std::to_string(lock)) | kExclusive;
  }
  uint32_t wait_for(int lock, Loop& loop) {
    const int32_t hold = loop.client.enqueue(open(lock, loop), true);
    CHECK(hold >= 0 && loop.report.granted == 0);
    return static_cast<uint32_t>(hold);
  }
  // Returns when the doorbell has been rung.
  void release(int lock) {
    const int before = page->released.load();
    page->release[lock].store(true);
    CHECK(harness::eventually([&] { return page->released.load() > before; }));
  }
  void end() {
    page->end.store(true);
    JOIN_OK(pid);
  }
};

bool doorbell_thread_sleeps() {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", interpose::sleeper.load());
  char text[256] = "";
  FILE* file = fopen(path, "r");
  if (file == nullptr) return false;
  if (fgets(text, sizeof text, file) == nullptr) text[0] = '\0';
  fclose(file);
  const char* end = strrchr(text, ')');
  return end != nullptr && end[2] == 'S';
}

TEST("a wait in another namespace than those that the doorbell thread sleeps on is told") {
  Elsewhere elsewhere;
  Loop loop(1);
  const uint32_t first = elsewhere.wait_for(0, loop);
  CHECK(harness::eventually(doorbell_thread_sleeps));
  const uint32_t second = elsewhere.wait_for(1, loop);
  elsewhere.release(1);
  loop.await(second);
  elsewhere.release(0);
  loop.await(first);
  elsewhere.end();
}

TEST("a wait in a namespace on which the doorbell thread slept once, and sleeps no more, is told") {
  Elsewhere elsewhere;
  Loop loop(1);
  const uint32_t first = elsewhere.wait_for(0, loop);
  elsewhere.release(0);
  loop.await(first);
  const uint32_t second = elsewhere.wait_for(1, loop);  // wakes it: nobody waits where it slept
  CHECK(harness::eventually(doorbell_thread_sleeps));
  const uint32_t third = elsewhere.wait_for(2, loop);
  elsewhere.release(2);
  loop.await(third);
  elsewhere.release(1);
  loop.await(second);
  elsewhere.end();
}

TEST(
    "a wait in another namespace that begins, and is poked, while the doorbell thread goes to sleep is "
    "told") {
  Elsewhere elsewhere;
  Loop loop(1);
  BehindTheGuard place(elsewhere.segments[0]);
  const uint32_t first = elsewhere.wait_for(0, loop);
  place.await_one();  // it has looked where somebody waits, and at all that was poked
  const uint32_t second = elsewhere.wait_for(1, loop);
  elsewhere.release(1);
  place.let_go();
  loop.await(second);
  elsewhere.release(0);
  loop.await(first);
  elsewhere.end();
}

TEST("a poke that comes while the doorbell thread goes to sleep is told") {
  Elsewhere elsewhere;
  Loop loop(1);
  elsewhere.wait_for(0, loop);
  elsewhere.wait_for(2, loop);
  CHECK(harness::eventually(doorbell_thread_sleeps));
  BehindTheGuard place(elsewhere.segments[0]);
  elsewhere.release(0);
  place.await_one();  // it is awake, and has taken the one poke
  elsewhere.release(2);
  place.let_go();
  loop.await_grants(2);
  elsewhere.end();
}

TEST("a kernel that can not wait for many futexes: waits in several namespaces are told") {
  interpose::no_futex_waitv.store(true);
  Elsewhere elsewhere;
  Loop loop(1);
  const uint32_t first = elsewhere.wait_for(0, loop);
  const uint32_t second = elsewhere.wait_for(1, loop);
  for (const uint32_t hold : {second, first}) {
    elsewhere.release(hold == first ? 0 : 1);
    loop.await(hold);
  }
  elsewhere.end();
  CHECK_EQ(interpose::sleeper.load(), 0);
}

TEST("a kernel without pidfds: who waits for a killed process is told") {
  interpose::no_pidfd_open.store(true);
  Elsewhere elsewhere;
  Loop loop(1);
  const uint32_t first = elsewhere.wait_for(0, loop);
  KILL_AND_JOIN(elsewhere.pid);
  loop.await(first);
  CHECK_EQ(loop.report.abandoned, 1);
}

TEST("where nothing happens the watch thread looks seldom, and often again as soon as something does") {
  harness::Segment segment;
  Loop loop(1);
  proclock::Runtime& runtime = proclock::Runtime::get();
  const uint32_t key = loop.open(segment.name(), "client") | kExclusive;
  const uint32_t held = loop.acquire(key);
  const int32_t first = loop.client.enqueue(key, true);
  CHECK(first >= 0);
  CHECK(harness::eventually([&] { return runtime.is_slow(); }));
  const int32_t second = loop.client.enqueue(key, true);  // a wait begins
  CHECK(second >= 0);
  CHECK(harness::eventually([&] { return !runtime.is_slow(); }));
  CHECK(harness::eventually([&] { return runtime.is_slow(); }));
  loop.release(held);  // a poke
  CHECK(harness::eventually([&] { return !runtime.is_slow(); }));
  loop.await(static_cast<uint32_t>(first));
  loop.release(static_cast<uint32_t>(first));
  loop.await(static_cast<uint32_t>(second));
  loop.release(static_cast<uint32_t>(second));
}

TEST("a wait that is withdrawn is over for good, and the next in the queue gets the lock") {
  harness::Segment segment;
  Loop loop(1);
  const uint32_t key = loop.open(segment.name(), "client") | kExclusive;
  const uint32_t held = loop.acquire(key);
  const int32_t first = loop.client.enqueue(key, true);
  const int32_t second = loop.client.enqueue(key, true);
  CHECK(first >= 0 && second >= 0);
  CHECK_EQ(loop.client.withdraw(static_cast<uint32_t>(first)), Status::kOk);
  CHECK_EQ(loop.client.withdraw(static_cast<uint32_t>(first)), Status::kNotHeld);
  CHECK_EQ(loop.client.react(static_cast<uint32_t>(first)), Status::kNotHeld);
  CHECK_EQ(loop.client.async_waits(), 1u);
  loop.release(held);
  loop.await(static_cast<uint32_t>(second));
  CHECK_EQ(loop.client.async_waits(), 0u);
  loop.release(static_cast<uint32_t>(second));
  CHECK_EQ(loop.client.release(static_cast<uint32_t>(second)), Status::kNotHeld);
}

TEST(
    "a thread that ends gives back its holds and waits, and the next holder is told that a writer left in "
    "the middle") {
  harness::Segment segment;
  Loop loop(1);
  const uint32_t key = loop.open(segment.name(), "client") | kExclusive;
  const uint32_t other_key = loop.open(segment.name(), "other") | kExclusive;
  const uint32_t other = loop.acquire(other_key);
  auto ends = [&] {
    Loop mine(9);
    mine.acquire(mine.open(segment.name(), "client") | kExclusive);
    CHECK(mine.client.enqueue(mine.open(segment.name(), "other") | kExclusive, true) >= 0);
  };
  const pthread_t id = thread(&ends);
  CHECK_EQ(pthread_join(id, nullptr), 0);
  const int32_t hold = loop.client.try_acquire(key);
  CHECK(hold >= 0);
  CHECK_EQ(loop.report.abandoned, 1);
  proclock::AbandonedInfo info;
  CHECK_EQ(loop.client.abandoned(static_cast<uint32_t>(hold), &info), Status::kOk);
  CHECK_EQ(info.thread, 9u);
  std::vector<proclock::HolderInfo> infos;
  CHECK_EQ(loop.client.query(other_key >> Client::kKeyBits, true, &infos), Status::kOk);
  CHECK_EQ(infos.size(), 1u);
  loop.release(static_cast<uint32_t>(hold));
  loop.release(other);
}

TEST("a synchronous wait ends with its slice when nothing happens, and with the grant when it does") {
  harness::Segment segment;
  Loop loop(1);
  const uint32_t key = loop.open(segment.name(), "client") | kExclusive;
  const uint32_t held = loop.acquire(key);
  std::atomic<int> slices{0};
  auto waits = [&] {
    Loop mine(2);
    const int32_t hold = mine.client.enqueue(mine.open(segment.name(), "client") | kExclusive, false);
    CHECK(hold >= 0);
    Status status = mine.report.granted != 0 ? Status::kOk : Status::kAgain;
    while (status == Status::kAgain) {
      slices.fetch_add(1);
      status = mine.client.wait(static_cast<uint32_t>(hold), 5);
    }
    CHECK_EQ(status, Status::kOk);
    mine.release(static_cast<uint32_t>(hold));
  };
  const pthread_t id = thread(&waits);
  CHECK(harness::eventually([&] { return slices.load() > 2; }));
  loop.release(held);
  CHECK_EQ(pthread_join(id, nullptr), 0);
}

TEST("a lock can be opened, and its namespace be entered, although the guard is not to be had for a while") {
  harness::Segment segment;
  std::shared_ptr<proclock::Space> space;
  proclock::OpenFailure failure;
  pid_t opened_by = 0;
  CHECK_EQ(proclock::Runtime::get().enter(segment.name(), -1, &space, &failure), Status::kOk);
  {
    // Many times the patience of one attempt, as when the guard's owner is preempted on a busy machine.
    proclock::LinuxArena::Guard guard(space->arena());
    CHECK_EQ(guard.status(), Status::kOk);
    opened_by = harness::start([&] {
      Loop* mine = new Loop(1);
      mine->release(mine->acquire(mine->open(segment.name(), "client") | kExclusive));
    });
    const uint64_t end = proclock::LinuxPlatform::monotonic_ns() + 20 * proclock::LinuxArena::kPatienceNs;
    while (proclock::LinuxPlatform::monotonic_ns() < end) usleep(1000);
  }
  JOIN_OK(opened_by);
}

TEST(
    "a granted wait that can not leave the queue, since the guard is stalled, is in nobody's way and is not "
    "seen") {
  harness::Segment segment;
  std::shared_ptr<proclock::Space> space;
  proclock::OpenFailure failure;
  CHECK_EQ(proclock::Runtime::get().enter(segment.name(), -1, &space, &failure), Status::kOk);
  Loop loop(1), other(2);
  const uint32_t key = loop.open(segment.name(), "client") | kExclusive;
  const uint32_t other_key = other.open(segment.name(), "client") | kExclusive;
  const uint32_t held = loop.acquire(key);
  const int32_t granted = loop.client.enqueue(key, true);
  CHECK(granted >= 0);
  loop.release(held);
  std::atomic<bool> stalled{false}, go_on{false};
  auto stops_in_the_guard = [&] {
    proclock::LinuxArena::Guard guard(space->arena());
    CHECK_EQ(guard.status(), Status::kOk);
    stalled.store(true);
    while (!go_on.load()) usleep(100);
  };
  const pthread_t id = thread(&stops_in_the_guard);
  CHECK(harness::eventually([&] { return stalled.load(); }));
  CHECK_EQ(loop.client.react(static_cast<uint32_t>(granted)), Status::kOk);
  CHECK_EQ(loop.client.release(static_cast<uint32_t>(granted)), Status::kOk);
  CHECK_EQ(loop.report.owed, 1);
  go_on.store(true);
  CHECK_EQ(pthread_join(id, nullptr), 0);

  std::vector<proclock::HolderInfo> infos;
  std::unordered_map<uint32_t, proclock::LockName> names;
  CHECK_EQ(other.client.query(other_key >> Client::kKeyBits, true, &infos), Status::kOk);
  CHECK_EQ(infos.size(), 0u);
  CHECK_EQ(other.client.query_all(other_key >> Client::kKeyBits, &infos, &names), Status::kOk);
  CHECK_EQ(infos.size(), 0u);
  const int32_t next = other.client.enqueue(other_key, true);
  CHECK(next >= 0);
  CHECK_EQ(other.report.granted, 1);  // at once, whatever the other thread has left to do
  CHECK_EQ(loop.client.settle_owed(), 0u);
  other.release(static_cast<uint32_t>(next));
  // And one that looks for itself settles first.
  CHECK_EQ(loop.client.release(loop.acquire(key)), Status::kOk);
  proclock::Runtime::get().exit(space);
}

TEST("misuse is refused: ids and holds that never were, or are no more") {
  harness::Segment segment;
  Loop loop(1);
  CHECK_EQ(loop.client.try_acquire(12345u << Client::kKeyBits), static_cast<int32_t>(Status::kClosed));
  CHECK_EQ(loop.client.enqueue(0, true), static_cast<int32_t>(Status::kClosed));
  CHECK_EQ(loop.client.release(77), Status::kNotHeld);
  CHECK_EQ(loop.client.downgrade(77), Status::kNotHeld);
  CHECK_EQ(loop.client.wait(77, 0), Status::kNotHeld);
  const uint32_t key = loop.open(segment.name(), "client");
  const uint32_t hold = loop.acquire(key | kExclusive);
  loop.client.close_lock(key >> Client::kKeyBits);
  CHECK_EQ(loop.client.try_acquire(key), static_cast<int32_t>(Status::kClosed));
  loop.release(hold);  // an open hold outlives the handle
  CHECK_EQ(loop.client.release(hold), Status::kNotHeld);
}

}  // namespace
