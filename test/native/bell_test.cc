// The thread that serves the doorbells: a poke that comes at a bad moment, kernels that can not do all that it likes to use, and
// how often it looks. The platform is that of the tests, for it can hold a thread at the very place that a test is about.
#include "interpose.h"
#include "loop.h"

namespace {

using Loop = BasicLoop<TestPlatform>;

// ---- a poke that comes while its waiter is made known, or while the doorbell thread goes to sleep

// Holds up the other threads of this process where they have left the latch of a namespace.
class BehindTheLatch {
 public:
  explicit BehindTheLatch(const harness::Segment& segment) {
    proclock::OpenFailure failure;
    CHECK_EQ(proclock::Runtime<TestPlatform>::get().enter(segment.name(), -1, &space_, &failure),
             Status::kOk);
    {
      Member::Arena::Latched latched(space_->arena());
      mutex_ = TestPlatform::LocalMutex::last_locked;
    }
    TestPlatform::LocalMutex::behind.store(mutex_);
  }
  void await_one() {
    CHECK(harness::eventually([] { return TestPlatform::LocalMutex::held_up.load() != 0; }));
  }
  void let_go() {
    TestPlatform::LocalMutex::behind.store(nullptr);
    proclock::Runtime<TestPlatform>::get().exit(space_);
  }

 private:
  std::shared_ptr<proclock::Space<TestPlatform>> space_;
  const TestPlatform::LocalMutex* mutex_ = nullptr;
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
  BehindTheLatch place(segment);
  may_wait.store(1);
  CHECK(harness::eventually([&] {  // it is queued, and does not come back yet
    std::vector<proclock::HolderInfo> infos;
    CHECK_EQ(loop.client.query(key >> kKeyBits, true, &infos), Status::kOk);
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
  LINUX_ONLY("there is no call that sleeps on several words");
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
  LINUX_ONLY("there is no call that sleeps on several words");
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
  TestPlatform::stays_awake.store(true);
  const uint32_t first = elsewhere.wait_for(0, loop);
  // It has looked where somebody waits, and at all that was poked.
  CHECK(harness::eventually([] { return TestPlatform::kept_awake.load() != 0; }));
  const uint32_t second = elsewhere.wait_for(1, loop);
  elsewhere.release(1);
  TestPlatform::stays_awake.store(false);
  loop.await(second);
  elsewhere.release(0);
  loop.await(first);
  elsewhere.end();
}

TEST("a poke that comes while the doorbell thread goes to sleep is told") {
  LINUX_ONLY("there is no call that sleeps on several words");
  Elsewhere elsewhere;
  Loop loop(1);
  elsewhere.wait_for(0, loop);
  elsewhere.wait_for(2, loop);
  CHECK(harness::eventually(doorbell_thread_sleeps));
  BehindTheLatch place(elsewhere.segments[0]);
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

TEST(
    "a kernel that can not wait for many futexes: a wait elsewhere that begins while this is found out is "
    "told") {
  interpose::no_futex_waitv.store(true);
  Elsewhere elsewhere;
  Loop loop(1);
  const uint32_t mine = loop.acquire(loop.open(elsewhere.segments[0].name(), "mine") | kExclusive);
  // Nobody waits: the doorbell thread has no tick, and sleeps for ever.
  TestPlatform::stays_awake.store(true);
  CHECK_EQ(loop.client.listen(mine), Status::kOk);
  CHECK(harness::eventually([] { return TestPlatform::kept_awake.load() != 0; }));
  const uint32_t hold = elsewhere.wait_for(1, loop);
  TestPlatform::stays_awake.store(false);
  elsewhere.release(1);
  loop.await(hold);
  loop.release(mine);
  elsewhere.end();
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

TEST("who waits for a process that has just entered is told of its death by its end, not by a tick") {
  LINUX_ONLY("there is no call that sleeps on several words");
  TestPlatform::has_no_ticks.store(true);
  harness::Segment segment;
  Loop loop(1);
  const uint32_t key = loop.open(segment.name(), "mine") | kExclusive;
  const uint32_t held = loop.acquire(key);
  const int32_t before = loop.client.enqueue(key, true);  // all that are in by now are watched
  CHECK(before >= 0 && loop.report.granted == 0);
  CHECK(harness::eventually(doorbell_thread_sleeps));
  const pid_t holder = start_holder<TestPlatform>(segment, "theirs");
  const int32_t waits = loop.client.enqueue(loop.open(segment.name(), "theirs") | kExclusive, true);
  CHECK(waits >= 0 && loop.report.granted == 0);
  KILL_AND_JOIN(holder);
  loop.await(static_cast<uint32_t>(waits));
  CHECK_EQ(loop.report.abandoned, 1);
  loop.release(held);
  loop.await(static_cast<uint32_t>(before));
}

TEST(
    "where nothing happens the namespace is looked at seldom, and often again as soon as something happens") {
  harness::Segment segment;
  Loop loop(1);
  std::shared_ptr<proclock::Space<TestPlatform>> space;
  proclock::OpenFailure failure;
  CHECK_EQ(proclock::Runtime<TestPlatform>::get().enter(segment.name(), -1, &space, &failure), Status::kOk);
  const uint32_t key = loop.open(segment.name(), "client") | kExclusive;
  const uint32_t held = loop.acquire(key);
  const int32_t first = loop.client.enqueue(key, true);
  CHECK(first >= 0);
  CHECK(harness::eventually([&] { return space->is_slow(); }));
  const int32_t second = loop.client.enqueue(key, true);  // a wait begins
  CHECK(second >= 0);
  CHECK(harness::eventually([&] { return !space->is_slow(); }));
  CHECK(harness::eventually([&] { return space->is_slow(); }));
  loop.release(held);  // a poke
  CHECK(harness::eventually([&] { return !space->is_slow(); }));
  loop.await(static_cast<uint32_t>(first));
  loop.release(static_cast<uint32_t>(first));
  loop.await(static_cast<uint32_t>(second));
  loop.release(static_cast<uint32_t>(second));
}

TEST(
    "more namespaces than one thread can sleep on are served all the same, and it polls for as long as there "
    "are so many") {
  struct Page {
    std::atomic<int> held{0}, may_release{0};
  };
  Page* page = harness::shared<Page>();
  std::deque<harness::Segment> segments(TestPlatform::kSleepsMax + 20);
  const pid_t holder = harness::start([&] {
    auto* mine = new Loop(5);
    std::vector<uint32_t> holds;
    for (const harness::Segment& segment : segments)
      holds.push_back(mine->acquire(mine->open(segment.name(), "client") | kExclusive));
    page->held.store(1);
    while (page->may_release.load() == 0) usleep(1000);
    for (const uint32_t hold : holds) mine->release(hold);
    for (;;) pause();
  });
  CHECK(harness::eventually([&] { return page->held.load() == 1; }));
  Loop loop(1);
  std::vector<uint32_t> keys, holds;
  for (const harness::Segment& segment : segments) {
    keys.push_back(loop.open(segment.name(), "client") | kExclusive);
    const int32_t hold = loop.client.enqueue(keys.back(), true);
    CHECK(hold >= 0 && loop.report.granted == 0);
    holds.push_back(static_cast<uint32_t>(hold));
  }
  page->may_release.store(1);
  loop.await_grants(segments.size());
  KILL_AND_JOIN(holder);

  // Of one namespace there is still a wait.
  const int32_t wait = loop.client.enqueue(keys[0], true);
  CHECK(wait >= 0 && loop.report.granted == 0);
  for (size_t n = 1; n < segments.size(); n++) {
    loop.release(holds[n]);
    CHECK_EQ(loop.client.close_lock(keys[n] >> kKeyBits), Status::kOk);
  }
  // It polled 200 times a second.
  if (TestPlatform::kSleepsMax > 1) {
    CHECK(harness::eventually([] {
      const uint32_t before = TestPlatform::times_slept.load();
      usleep(400000);
      return TestPlatform::times_slept.load() - before < 20;
    }));
  }
  loop.release(holds[0]);
  loop.await(static_cast<uint32_t>(wait));
  loop.release(static_cast<uint32_t>(wait));
}

}  // namespace
