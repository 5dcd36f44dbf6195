// The client where the latch of a namespace is not to be had: what is done later, what is owed, and who is held up.
#include "loop.h"

namespace {

using SystemArena = proclock::Arena<proclock::System>;

TEST("a lock can be opened, and its namespace be entered, although the latch is not to be had for a while") {
  harness::Segment segment;
  std::shared_ptr<proclock::Space<proclock::System>> space;
  proclock::OpenFailure failure;
  pid_t opened_by = 0;
  CHECK_EQ(proclock::Runtime<proclock::System>::get().enter(segment.name(), -1, &space, &failure),
           Status::kOk);
  {
    // Many times the patience of one attempt, as when the latch's owner is preempted on a busy machine.
    SystemArena::Latched latched(space->arena());
    CHECK_EQ(latched.status(), Status::kOk);
    opened_by = harness::start([&] {
      Loop* mine = new Loop(1);
      mine->release(mine->acquire(mine->open(segment.name(), "client") | kExclusive));
    });
    const uint64_t end = proclock::System::monotonic_ns() + 20 * proclock::System::latch_patience_ns;
    while (proclock::System::monotonic_ns() < end) usleep(1000);
  }
  JOIN_OK(opened_by);
}

TEST(
    "a granted wait that can not leave the queue, since the latch is stalled, is in nobody's way and is not "
    "seen") {
  harness::Segment segment;
  Loop loop(1), other(2);
  const uint32_t key = loop.open(segment.name(), "client") | kExclusive;
  const uint32_t other_key = other.open(segment.name(), "client") | kExclusive;
  const uint32_t held = loop.acquire(key);
  const int32_t granted = loop.client.enqueue(key, true);
  CHECK(granted >= 0);
  loop.release(held);
  StopsInside stops(segment);
  CHECK_EQ(loop.client.react(static_cast<uint32_t>(granted)), Status::kOk);
  CHECK_EQ(loop.client.release(static_cast<uint32_t>(granted)), Status::kOk);
  CHECK_EQ(loop.report.owed, 1);
  stops.go_on();

  std::vector<proclock::HolderInfo> infos;
  std::unordered_map<uint32_t, proclock::LockName> names;
  CHECK_EQ(other.client.query(other_key >> kKeyBits, true, &infos), Status::kOk);
  CHECK_EQ(infos.size(), 0u);
  CHECK_EQ(other.client.query_all(other_key >> kKeyBits, &infos, &names), Status::kOk);
  CHECK_EQ(infos.size(), 0u);
  const int32_t next = other.client.enqueue(other_key, true);
  CHECK(next >= 0);
  CHECK_EQ(other.report.granted, 1);  // at once, whatever the other thread has left to do
  CHECK_EQ(loop.client.settle_owed(), 0u);
  other.release(static_cast<uint32_t>(next));
  // And one that looks for itself settles first.
  CHECK_EQ(loop.client.release(loop.acquire(key)), Status::kOk);
}

TEST(
    "a thread that waits patiently for a stalled latch holds up no other thread of its process, and no other "
    "namespace") {
  harness::Segment stalled, other;
  Loop loop(1);
  const uint32_t key = loop.open(other.name(), "client") | kExclusive;
  // The thread that serves the doorbells has something to do in both.
  const uint32_t first = loop.open(stalled.name(), "client") | kExclusive;
  const uint32_t first_held = loop.acquire(first);
  CHECK(loop.client.enqueue(first, true) >= 0);
  struct Page {
    std::atomic<int> holds{0};
    std::atomic<bool> release{false};
    std::atomic<uint64_t> released_ms{0};
  };
  Page* page = harness::shared<Page>();
  const pid_t holder = harness::start([&] {
    Loop* mine = new Loop(1);
    const uint32_t held = mine->acquire(mine->open(other.name(), "client") | kExclusive);
    page->holds.store(1);
    CHECK(harness::eventually([&] { return page->release.load(); }));
    page->released_ms.store(harness::now_ms());
    mine->release(held);
  });
  CHECK(harness::eventually([&] { return page->holds.load() == 1; }));
  const int32_t hold = loop.client.enqueue(key, true);
  CHECK(hold >= 0 && loop.report.granted == 0);
  StopsInside stops(stalled);
  std::atomic<bool> begun{false}, end{false};
  auto patient = [&] {
    Loop mine(2);
    uint32_t id = 0;
    proclock::OpenFailure failure;
    begun.store(true);
    while (!end.load()) {
      const Status status = mine.client.open_lock(stalled.name(), -1, name_of("another"), &id, &failure);
      CHECK(status == Status::kStalled || end.load());
    }
  };
  const pthread_t id = thread(&patient);
  CHECK(harness::eventually([&] { return begun.load(); }));
  usleep(50000);
  // Something for the bell thread to do where it is stalled: it has little patience with it.
  const uint64_t before = harness::now_ms();
  for (int n = 0; n < 3; n++) {
    std::vector<proclock::HolderInfo> infos;
    CHECK_EQ(loop.client.query(first >> kKeyBits, false, &infos), Status::kStalled);
  }
  CHECK(harness::now_ms() - before < 300);
  page->release.store(true);
  loop.await(static_cast<uint32_t>(hold));
  CHECK(harness::now_ms() - page->released_ms.load() < 300);
  JOIN_OK(holder);
  end.store(true);
  stops.go_on();
  CHECK_EQ(pthread_join(id, nullptr), 0);
  loop.release(static_cast<uint32_t>(hold));
  loop.release(first_held);
}

TEST("what is owed for a wait that was withdrawn, and whose lock is closed, is forgotten") {
  harness::Segment segment;
  Loop loop(1);
  const uint32_t key = loop.open(segment.name(), "client") | kExclusive;
  const uint32_t again = loop.open(segment.name(), "client") | kExclusive;
  const uint32_t held = loop.acquire(key);
  const int32_t hold = loop.client.enqueue(again, true);
  CHECK(hold >= 0);
  {
    Member boss(segment.name());
    const Auditor auditor(boss.memory.base());
    for (const uint32_t slot : auditor.queue(1))
      auditor.slot(slot).flags.fetch_or(proclock::kSlotSkipped, std::memory_order_relaxed);
  }
  StopsInside stops(segment);
  CHECK_EQ(loop.client.react(static_cast<uint32_t>(hold)), Status::kAgain);
  CHECK_EQ(loop.report.owed, 1);
  stops.go_on();
  loop.client.close_lock(again >> kKeyBits);
  CHECK_EQ(loop.client.withdraw(static_cast<uint32_t>(hold)), Status::kOk);
  CHECK_EQ(loop.client.settle_owed(), 0u);
  CHECK_EQ(loop.report.owed, 0);
  loop.release(held);
}

// How long a call takes that has to be done now, and what it says.
struct Patient {
  explicit Patient(const char* segment) : loop(1), key(loop.open(segment, "client")) {}
  Status query() {
    std::vector<proclock::HolderInfo> infos;
    const uint64_t begun = harness::now_ms();
    const Status status = loop.client.query(key >> kKeyBits, true, &infos);
    took_ms = harness::now_ms() - begun;
    return status;
  }
  // Calls until there is hardly any patience left.
  void loses_patience() {
    CHECK_EQ(query(), Status::kStalled);
    CHECK(took_ms >= 990);
    for (int n = 0; n < 3; n++) CHECK_EQ(query(), Status::kStalled);
    CHECK(took_ms < 990);  // 20, on a machine of one's own
  }
  Loop loop;
  uint32_t key;
  uint64_t took_ms = 0;
};

TEST(
    "with an owner of the latch that was waited for in vain there is less patience, until somebody gets in") {
  harness::Segment segment;
  Member owner(segment.name());
  Patient patient(segment.name());
  for (int round = 0; round < 2; round++) {
    {
      Member::Arena::Latched latched(*owner.arena);
      CHECK_EQ(latched.status(), Status::kOk);
      patient.loses_patience();
    }
    CHECK_EQ(patient.query(), Status::kOk);
  }
}

TEST(
    "a call with little patience has all of it again when the owner goes on, and another one is in the "
    "latch") {
  harness::Segment segment;
  Member first(segment.name()), second(segment.name());
  Patient patient(segment.name());
  std::atomic<bool> out{false};
  auto owners = [&] {
    {
      Member::Arena::Latched latched(*first.arena);
      CHECK(harness::eventually([&] { return out.load(); }));
      usleep(5000);
    }
    Member::Arena::Latched latched(*second.arena);
    CHECK_EQ(latched.status(), Status::kOk);
    usleep(400000);
  };
  const pthread_t running = thread(&owners);
  CHECK(harness::eventually([&] { return first.arena->owner_inside() == first.memory.number(); }));
  patient.loses_patience();
  out.store(true);
  CHECK_EQ(patient.query(), Status::kOk);
  pthread_join(running, nullptr);
}

TEST("a latch that names a process which lives and is not inside is mended by its next tick") {
  harness::Segment segment;
  Member named(segment.name()), other(segment.name());
  proclock::ScanSeen seen;
  auto& latch = named.arena->header().latch;
  latch.store(proclock::latch_word(named.memory.number()), std::memory_order_relaxed);
  CHECK_EQ(other.arena->tick(&seen), Status::kOk);
  CHECK(other.arena->owner_inside() == named.memory.number());  // it can not tell
  for (int n = 0; n < 100 && named.arena->owner_inside() != 0; n++) named.arena->tick(&seen);
  CHECK_EQ(named.arena->owner_inside(), 0u);
  CHECK_EQ(named.arena->header().rebuilds.load(std::memory_order_relaxed), 1u);
  other.open("latch");
  audit(other);
}

TEST("a latch that names a process which has found the namespace corrupt is mended by its next call") {
  harness::Segment segment;
  Loop loop(1);
  const uint32_t key = loop.open(segment.name(), "client") | kExclusive;
  Member other(segment.name());
  const uint64_t named = Auditor(other.memory.base()).process(1).number.load(std::memory_order_relaxed);
  CHECK(named != 0 && named != other.memory.number());
  auto& latch = other.arena->header().latch;
  for (const bool tries : {true, false}) {
    latch.store(proclock::kLatchCorrupt, std::memory_order_relaxed);
    CHECK_EQ(loop.client.check(key >> kKeyBits), Status::kCorrupt);
    // What it has seen is written over.
    latch.store(proclock::latch_word(named) | proclock::kLatchDirty | proclock::kLatchWaiters,
                std::memory_order_relaxed);
    if (tries) {
      CHECK_EQ(loop.client.try_acquire(key), static_cast<int32_t>(Status::kCorrupt));
    } else {
      std::vector<proclock::HolderInfo> infos;
      CHECK_EQ(loop.client.query(key >> kKeyBits, true, &infos), Status::kCorrupt);
    }
    CHECK_EQ(other.arena->owner_inside(), 0u);
    CHECK(other.arena->is_corrupt());
  }
  other.vanish();
}

TEST("who released while the latch was stalled, and is busy since, holds up nobody") {
  harness::Segment segment;
  Loop loop(1);
  const uint32_t key = loop.open(segment.name(), "client") | kExclusive;
  const uint32_t held = loop.acquire(key);
  std::atomic<int> waits{0};
  std::atomic<int> granted{0};
  auto waiter = [&] {
    Loop mine(2);
    const uint32_t their_key = mine.open(segment.name(), "client") | kExclusive;
    const int32_t hold = mine.client.enqueue(their_key, true);
    CHECK(hold >= 0 && mine.report.granted == 0);
    waits.store(1);
    mine.await(static_cast<uint32_t>(hold));
    granted.store(1);
    mine.release(static_cast<uint32_t>(hold));
  };
  const pthread_t id = thread(&waiter);
  CHECK(harness::eventually([&] { return waits.load() == 1; }));
  StopsInside stops(segment);
  CHECK_EQ(loop.client.release(held), Status::kOk);
  CHECK_EQ(loop.report.owed, 1);
  stops.go_on();
  // Its event loop would settle that now.
  CHECK(harness::eventually([&] { return granted.load() == 1; }));
  CHECK_EQ(pthread_join(id, nullptr), 0);
  CHECK_EQ(loop.client.settle_owed(), 0u);
}

}  // namespace
