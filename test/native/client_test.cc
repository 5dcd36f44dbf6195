// The client without Node: waits of several threads and processes, told through their callbacks, by the thread that serves the
// doorbells and by that which watches processes.
#include "interpose.h"
#include "loop.h"

namespace {

TEST("an acquire that does not have to wait starts no thread") {
  harness::Segment segment;
  Loop loop(1);
  const uint32_t key = loop.open(segment.name(), "client");
  const int32_t hold = loop.client.try_acquire(key | kExclusive);
  CHECK(hold >= 0);
  CHECK_EQ(loop.client.try_acquire(key), static_cast<int32_t>(Status::kBusy));
  loop.release(static_cast<uint32_t>(hold));
  CHECK_EQ(native_threads(), 0);
  loop.client.close_lock(key >> kKeyBits);
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
  const pid_t holder = start_holder<proclock::System>(segment, "client");
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
    "waits in many threads, locks and namespaces need one native thread, and a descriptor for each "
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
  CHECK(harness::eventually([] { return native_threads() == 1; }));  // it names itself when it runs
  // What stands for a port of macOS here is a descriptor as well.
  for (const auto& segment : segments) CHECK_EQ(open_files(segment.name()), HARNESS_LINUX ? 1 : 2);
  for (const uint32_t hold : held) loop.release(hold);
  for (const pthread_t id : threads) CHECK_EQ(pthread_join(id, nullptr), 0);
  CHECK_EQ(native_threads(), 1);
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
  CHECK_EQ(loop.client.query(other_key >> kKeyBits, true, &infos), Status::kOk);
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

TEST("misuse is refused: ids and holds that never were, or are no more") {
  harness::Segment segment;
  Loop loop(1);
  CHECK_EQ(loop.client.try_acquire(12345u << kKeyBits), static_cast<int32_t>(Status::kClosed));
  CHECK_EQ(loop.client.enqueue(0, true), static_cast<int32_t>(Status::kClosed));
  CHECK_EQ(loop.client.release(77), Status::kNotHeld);
  CHECK_EQ(loop.client.downgrade(77), Status::kNotHeld);
  CHECK_EQ(loop.client.wait(77, 0), Status::kNotHeld);
  const uint32_t key = loop.open(segment.name(), "client");
  const uint32_t hold = loop.acquire(key | kExclusive);
  loop.client.close_lock(key >> kKeyBits);
  CHECK_EQ(loop.client.try_acquire(key), static_cast<int32_t>(Status::kClosed));
  loop.release(hold);  // an open hold outlives the handle
  CHECK_EQ(loop.client.release(hold), Status::kNotHeld);
}

}  // namespace
