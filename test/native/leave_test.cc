// The end of a thread (E1 to E3 in protocol.h): it marks its slots and waits for nobody. Whoever gets the latch next recovers them.
#include "loop.h"

namespace {

constexpr Mode kS = Mode::kShared;
constexpr Mode kX = Mode::kExclusive;

enum class Left { kExclusive, kShared, kReleasing, kQueued, kGranted, kIdle };
constexpr Left kAll[] = {Left::kExclusive, Left::kShared,  Left::kReleasing,
                         Left::kQueued,    Left::kGranted, Left::kIdle};

// Those who may come to recover what was left.
enum class Who { kOwnProcess, kLooker, kDetector, kNewcomer, kThief, kRebuild };
constexpr Who kEverybody[] = {Who::kOwnProcess, Who::kLooker, Who::kDetector,
                              Who::kNewcomer,   Who::kThief,  Who::kRebuild};

struct Scene {
  Scene()
      : boss(segment.name()), worker(segment.name()), ref(boss.open("left")), slot(worker.open("left", 9)) {}

  // In the latch, and not to go on for the moment.
  template <class Function>
  void while_stalled(Function function) {
    const uint64_t patience_ns = TestPlatform::latch_patience_ns;
    TestPlatform::latch_patience_ns = 1000000;
    Member::Arena::Latched latched(*inside.arena);
    function();
    TestPlatform::latch_patience_ns = patience_ns;
  }
  // Brings the worker's slot to where its thread is to end.
  void prepare(Left left) {
    switch (left) {
      case Left::kExclusive:
      case Left::kShared:
        CHECK_EQ(worker.acquire(slot, left == Left::kShared ? kS : kX), Try::kAcquired);
        return;
      case Left::kReleasing:
        CHECK_EQ(worker.acquire(slot, kX), Try::kAcquired);
        waiter = boss.bind(ref);
        CHECK_EQ(boss.queue(waiter, kX, proclock::kSlotAsync), Status::kAgain);
        return;
      case Left::kQueued:
        CHECK_EQ(boss.acquire(ref, kX), Try::kAcquired);
        CHECK_EQ(worker.queue(slot, kX, proclock::kSlotAsync), Status::kAgain);
        return;
      case Left::kGranted:
        CHECK_EQ(worker.arena->enqueue(slot, kX, proclock::kSlotAsync), Status::kOk);
        CHECK_EQ(worker.arena->react(slot, kX, &worker.token), Status::kOk);
        return;
      case Left::kIdle:
        return;
    }
  }
  void end_thread(Left left) {
    while_stalled([&] {
      if (left == Left::kReleasing) CHECK_EQ(worker.arena->release(slot), Status::kStalled);
      if (left == Left::kGranted) CHECK_EQ(worker.arena->settle_grant(slot), Status::kStalled);
      worker.arena->leave(slot);
      CHECK_EQ(worker.arena->recover_left(), Status::kStalled);
      CHECK(proclock::is_left(slot.slot->word.load(std::memory_order_relaxed)));
      worker.arena->leave(slot);  // no harm
    });
  }
  void recover(Who who, Left left) {
    switch (who) {
      case Who::kOwnProcess:
        CHECK_EQ(worker.arena->recover_left(), Status::kOk);
        return;
      case Who::kLooker:
        CHECK_EQ(boss.arena->look(ref.lock_index), Status::kOk);
        return;
      case Who::kDetector: {
        proclock::ScanSeen seen;
        for (int n = 0; n < 2; n++) CHECK_EQ(boss.arena->tick(&seen), Status::kOk);
        return;
      }
      case Who::kNewcomer: {
        Member newcomer(segment.name());
        return;
      }
      case Who::kThief: {
        const Ref thief = boss.bind(ref);
        boss.steal(thief);
        if (left == Left::kQueued) CHECK_EQ(boss.arena->release(ref), Status::kStolen);
        boss.release(thief);
        boss.unbind(thief);
        return;
      }
      case Who::kRebuild:
        boss.arena->header().latch.store(proclock::kLatchDirty, std::memory_order_relaxed);
        boss.look_at_all();
        return;
    }
  }

  harness::Segment segment;
  Member boss;
  Member worker;
  Member inside{segment.name()};
  Ref ref;
  Ref slot;
  Ref waiter;
};

TEST(
    "whatever state a thread ends in while the latch is stalled, whoever gets the latch next cleans up after "
    "it") {
  for (const Left left : kAll) {
    for (const Who who : kEverybody) {
      harness::context = "left state and who recovers";
      harness::context_step = static_cast<int>(left) * 10 + static_cast<int>(who);
      Scene s;
      s.prepare(left);
      s.end_thread(left);
      if (left == Left::kQueued && who != Who::kThief) s.boss.release(s.ref);
      s.recover(who, left);
      // Such a slot keeps nobody from anything: it stays until somebody has a reason to look at its process.
      if (left == Left::kIdle || left == Left::kShared) CHECK_EQ(s.worker.arena->recover_left(), Status::kOk);
      if (left == Left::kReleasing) {
        CHECK(s.boss.take_poke(s.waiter));
        CHECK_EQ(s.boss.react(s.waiter, kX), Status::kOk);
        s.boss.release(s.waiter);
        s.boss.unbind(s.waiter);
      }
      // A grant that was not settled is a hold all the same.
      const bool marked = left == Left::kExclusive || left == Left::kGranted;
      CHECK_EQ(s.ref.lock->abandoned.load(std::memory_order_relaxed), marked ? 1u : 0u);
      if (marked) CHECK_EQ(s.boss.arena->abandoned(s.ref).thread, 9u);
      CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kAcquired);
      s.boss.release(s.ref);
      s.boss.unbind(s.ref);
      CHECK_EQ(audit(s.boss).slots, 0u);
      CHECK(!s.worker.has_slots());
    }
  }
}

TEST("a thread that ends takes nothing from the others of its process") {
  Scene s;
  const Ref beside = s.worker.open("left", 10);
  const Ref other = s.worker.open("other", 10);
  const Ref waiting = s.worker.open("left", 10);
  CHECK_EQ(s.worker.acquire(s.slot, kS), Try::kAcquired);
  CHECK_EQ(s.worker.acquire(beside, kS), Try::kAcquired);
  CHECK_EQ(s.worker.acquire(other, kX), Try::kAcquired);
  CHECK_EQ(s.worker.queue(waiting, kX, proclock::kSlotAsync), Status::kAgain);
  s.worker.end_thread({s.slot});
  CHECK_EQ(s.worker.arena->check_hold(beside), Status::kOk);
  CHECK_EQ(s.worker.arena->check_hold(other), Status::kOk);
  CHECK(s.boss.acquire(s.ref, kX) != Try::kAcquired);
  s.worker.release(beside);
  CHECK(s.worker.take_poke(waiting));
  CHECK_EQ(s.worker.react(waiting, kX), Status::kOk);
  CHECK_EQ(s.ref.lock->abandoned.load(std::memory_order_relaxed), 0u);
  s.worker.release(waiting);
  s.worker.release(other);
  audit(s.boss);
}

TEST("a late word of one whose slot has another owner by now touches nothing") {
  Scene s;
  CHECK_EQ(s.worker.acquire(s.slot, kX), Try::kAcquired);
  const Ref late = s.slot;
  s.worker.end_thread({s.slot});
  const Ref fresh = s.boss.open("another lock");
  CHECK_EQ(fresh.slot_index, late.slot_index);
  CHECK_EQ(s.boss.acquire(fresh, kX), Try::kAcquired);
  const uint64_t word = fresh.slot->word.load(std::memory_order_relaxed);
  CHECK_EQ(s.worker.arena->release(late), Status::kNotHeld);
  CHECK_EQ(s.worker.arena->downgrade(late), Status::kNotHeld);
  CHECK_EQ(s.worker.arena->finish(late, proclock::Finished::kRepair), Status::kNotHeld);
  CHECK_EQ(s.worker.arena->check_hold(late), Status::kStolen);
  CHECK_EQ(s.worker.acquire(late, kS, Turn::kFront), Try::kCorrupt);
  s.worker.arena->leave(late);
  CHECK_EQ(fresh.slot->word.load(std::memory_order_relaxed), word);
  CHECK_EQ(s.boss.arena->check_hold(fresh), Status::kOk);
  s.boss.release(fresh);
}

TEST(
    "a thread of a client that ends while the latch is stalled waits for a second at most, and its hold is "
    "marked") {
  harness::Segment segment;
  Loop loop(1);
  const uint32_t key = loop.open(segment.name(), "left") | kExclusive;
  Loop* ends = new Loop(9);
  ends->acquire(ends->open(segment.name(), "left") | kExclusive);
  StopsInside stops(segment);
  const uint64_t begun = harness::now_ms();
  delete ends;
  CHECK(harness::now_ms() - begun < 2000);
  stops.go_on();
  const uint32_t hold = loop.acquire(key);
  CHECK_EQ(loop.report.abandoned, 1);
  proclock::AbandonedInfo info;
  CHECK_EQ(loop.client.abandoned(hold, &info), Status::kOk);
  CHECK_EQ(info.thread, 9u);
  CHECK_EQ(info.pid, getpid());
  loop.release(hold);
}

}  // namespace
