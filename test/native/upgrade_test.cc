// From shared to exclusive: when, ahead of whom, and what is left of an upgrade that was given up, robbed, or died.
#include "world.h"

namespace {

constexpr Mode kS = Mode::kShared;
constexpr Mode kX = Mode::kExclusive;
constexpr uint32_t kAsync = proclock::kSlotAsync;

// A reader that is to be upgraded, and another process with readers and waiters.
struct Scene {
  Scene() : one(segment.name()), two(segment.name()), mine(one.open("lock")), theirs(two.open("lock")) {
    CHECK_EQ(one.acquire(mine, kS), Try::kAcquired);
    CHECK_EQ(two.acquire(theirs, kS), Try::kAcquired);
  }
  Status upgrade(Member& who, const Ref& ref, bool waits = true) {
    return Member::unstalled([&] { return who.arena->upgrade(ref, waits, &who.token); });
  }
  // Waits; `theirs` is in its way.
  void begin() { CHECK_EQ(upgrade(one, mine), Status::kAgain); }
  // As its event loop does when it is told.
  Status react() {
    CHECK(one.take_poke(mine));
    return upgrade(one, mine);
  }
  Ref waiter(Mode mode, Status expected = Status::kAgain) {
    const Ref ref = two.open("lock");
    CHECK_EQ(two.queue(ref, mode, kAsync), expected);
    return ref;
  }
  std::vector<uint32_t> in_order() { return Auditor(one.memory.base()).queue(mine.lock_index); }
  static bool holds(const Ref& ref, Mode mode) {
    return proclock::holds(ref.slot->word.load(std::memory_order_relaxed), mode);
  }
  harness::Segment segment;
  Member one;
  Member two;
  Ref mine;
  Ref theirs;
};

TEST("the only reader is exclusive at once, with a new token; beside another one it is not") {
  Scene s;
  const uint64_t before = s.mine.lock->token.load(std::memory_order_relaxed);
  CHECK_EQ(s.upgrade(s.one, s.mine, false), Status::kBusy);
  CHECK(s.holds(s.mine, kS));
  CHECK(s.in_order().empty());
  s.two.release(s.theirs);
  CHECK_EQ(s.upgrade(s.one, s.mine, false), Status::kOk);
  CHECK_EQ(s.one.token, before + 1);
  CHECK(s.holds(s.mine, kX));
  CHECK_EQ(s.two.acquire(s.theirs, kS), Try::kBusy);
  CHECK_EQ(s.upgrade(s.one, s.mine, false), Status::kNotHeld);
  s.one.release(s.mine);
  CHECK_EQ(s.upgrade(s.one, s.mine, false), Status::kNotHeld);
  CHECK_EQ(s.two.acquire(s.theirs, kX), Try::kAcquired);
}

TEST("it waits ahead of the queue, newcomers are barred, and it is shown as a reader") {
  Scene s;
  const Ref writer = s.waiter(kX);
  s.begin();
  CHECK((s.in_order() == std::vector<uint32_t>{s.mine.slot_index, writer.slot_index}));
  const Ref late = s.two.open("lock");
  for (const Mode mode : {kS, kX}) CHECK_EQ(s.two.acquire(late, mode), Try::kBarred);
  const Ref reader = s.waiter(kS);
  std::vector<proclock::HolderInfo> infos;
  CHECK_EQ(s.one.arena->snapshot(s.mine.lock_index, &infos), Status::kOk);
  CHECK_EQ(infos.size(), 4u);
  for (uint32_t n = 0; n < 4; n++) CHECK_EQ(infos[n].pending, n >= 2);
  for (uint32_t n = 0; n < 2; n++) CHECK_EQ(infos[n].mode, kS);
  audit(s.one);

  s.two.release(s.theirs);
  CHECK_EQ(s.react(), Status::kOk);
  CHECK((s.in_order() == std::vector<uint32_t>{writer.slot_index, reader.slot_index}));
  audit(s.one);
  CHECK(!s.two.take_poke(writer));
  s.one.release(s.mine);
  CHECK(s.two.take_poke(writer));
  CHECK_EQ(s.two.react(writer, kX), Status::kOk);
}

TEST("readers that were told that they may try may not any more, until it is over") {
  Scene s;
  Ref readers[2];
  for (Ref& reader : readers) {
    reader = s.two.open("lock");
    // Queued, and told; it has not reacted.
    CHECK_EQ(s.two.arena->enqueue(reader, kS, kAsync), Status::kOk);
  }
  s.begin();
  uint64_t token;
  for (const Ref& reader : readers) {
    CHECK_EQ(s.two.arena->try_front(reader, kS, &token), Try::kBarred);
    CHECK_EQ(s.two.react(reader, kS), Status::kAgain);
  }
  CHECK_EQ(s.one.arena->withdraw(s.mine), Status::kOk);
  for (const Ref& reader : readers) CHECK_EQ(s.two.react(reader, kS), Status::kOk);
}

TEST("a second one is refused, waiting or not, also one of the same process") {
  Scene s;
  s.begin();
  for (const bool waits : {false, true}) CHECK_EQ(s.upgrade(s.two, s.theirs, waits), Status::kUpgrading);
  CHECK(s.holds(s.theirs, kS));
  s.two.release(s.theirs);
  CHECK_EQ(s.react(), Status::kOk);
}

TEST("who gives up is shared as before, leaves no barrier behind, and those behind it are served at once") {
  Scene s;
  s.begin();
  const Ref reader = s.waiter(kS);
  CHECK_EQ(s.one.arena->withdraw(s.mine), Status::kOk);
  CHECK(s.holds(s.mine, kS));
  CHECK(s.two.take_poke(reader));
  CHECK_EQ(s.two.react(reader, kS), Status::kOk);
  const Ref newcomer = s.two.open("lock");
  CHECK_EQ(s.two.acquire(newcomer, kS), Try::kAcquired);
  CHECK_EQ(s.upgrade(s.two, newcomer, false), Status::kBusy);
  audit(s.one);
}

TEST("a theft ends it, and whoever is behind it follows the thief") {
  Scene s;
  s.begin();
  const Ref reader = s.waiter(kS);
  const Ref thief = s.two.open("lock");
  s.two.steal(thief);
  CHECK((s.in_order() == std::vector<uint32_t>{reader.slot_index}));
  audit(s.one);
  CHECK_EQ(s.react(), Status::kStolen);
  CHECK_EQ(s.one.arena->withdraw(s.mine), Status::kOk);
  s.two.release(thief);
  CHECK(s.two.take_poke(reader));
  CHECK_EQ(s.two.react(reader, kS), Status::kOk);
  CHECK_EQ(s.one.arena->release(s.mine), Status::kStolen);
}

TEST("an upgrader that died holds up nobody: the next one may upgrade") {
  Scene s;
  s.begin();
  const Ref reader = s.waiter(kS);
  s.one.vanish();
  CHECK_EQ(s.upgrade(s.two, s.theirs, true), Status::kOk);
  CHECK_EQ(s.theirs.lock->abandoned.load(std::memory_order_relaxed), 0u);
  s.two.release(s.theirs);
  CHECK(s.two.take_poke(reader));
}

TEST("so does one whose thread has ended") {
  Scene s;
  s.begin();
  s.one.arena->leave(s.mine);
  CHECK_EQ(s.upgrade(s.two, s.theirs, true), Status::kOk);
}

TEST("the death of the readers that it waits for lets it through") {
  Scene s;
  s.begin();
  s.waiter(kS);
  s.two.vanish();
  s.one.look_at_all();
  CHECK_EQ(s.react(), Status::kOk);
  CHECK_EQ(s.mine.lock->abandoned.load(std::memory_order_relaxed), 0u);
}

TEST("a rebuild finds it where it was") {
  Scene s;
  s.waiter(kX);
  s.begin();
  const std::vector<uint32_t> before = s.in_order();
  // As somebody leaves it who died inside.
  s.one.arena->header().latch.store(proclock::kLatchDirty, std::memory_order_relaxed);
  s.one.look_at_all();
  CHECK(s.in_order() == before);
  audit(s.one);
  s.two.release(s.theirs);
  CHECK_EQ(s.react(), Status::kOk);
}

TEST("one that does not react is passed over, and goes ahead of the others when it comes back") {
  Scene s;
  TestPlatform::frozen_ns = TestPlatform::monotonic_ns();
  s.begin();
  const Ref reader = s.waiter(kS);
  s.two.release(s.theirs);
  proclock::PokeSeen seen;
  for (int n = 0; n < 2; n++) {
    CHECK_EQ(s.two.arena->open_barrier_if_overdue(s.theirs.lock_index, &seen), Status::kOk);
    TestPlatform::frozen_ns += Member::Arena::kUnresponsiveNs;
  }
  CHECK(s.two.take_poke(reader));
  CHECK_EQ(s.two.react(reader, kS), Status::kOk);
  CHECK_EQ(s.react(), Status::kAgain);
  CHECK_EQ(s.two.acquire(s.theirs, kS), Try::kBarred);
  s.two.release(reader);
  CHECK_EQ(s.react(), Status::kOk);
}

TEST("what is refused for want of a storage leaves it shared") {
  Scene s;
  s.two.release(s.theirs);
  auto& storages = s.one.arena->header().storages;
  const uint32_t used = storages.used.load(std::memory_order_relaxed);
  storages.used.store(storages.reserved.load(std::memory_order_relaxed), std::memory_order_relaxed);
  TestPlatform::full = true;
  CHECK_EQ(s.upgrade(s.one, s.mine), Status::kNoSpace);
  CHECK(s.holds(s.mine, kS));
  CHECK(s.in_order().empty());
  storages.used.store(used, std::memory_order_relaxed);
  CHECK_EQ(s.upgrade(s.one, s.mine), Status::kOk);
  TestPlatform::full = false;
}

}  // namespace
