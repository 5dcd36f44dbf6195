// Content that is not possible, of the kinds that chance rarely meets: it is found, and costs no more than what it is about.
#include <unordered_map>

#include "dice.h"
#include "world.h"

namespace {

TEST("times that are no numbers, of many holders, do not lead the snapshot of a namespace astray") {
  harness::Segment segment;
  Member one(segment.name());
  std::vector<Ref> refs = {one.open("lock")};
  while (refs.size() < 200) refs.push_back(one.bind(refs[0]));
  for (const Ref& ref : refs) CHECK_EQ(one.acquire(ref, Mode::kShared), Try::kAcquired);
  Dice dice(1);
  for (int round = 0; round < 50; round++) {
    for (const Ref& ref : refs) {
      const uint64_t since = dice.one_in(20) ? ~uint64_t{0} : proclock::bits_of(dice.below(1000000));
      ref.slot->since.store(since, std::memory_order_relaxed);
    }
    std::vector<proclock::HolderInfo> infos;
    std::unordered_map<uint32_t, proclock::LockName> names;
    CHECK_EQ(one.arena->snapshot_all(&infos, &names), Status::kOk);
    CHECK_EQ(infos.size(), refs.size());
    for (size_t n = 1; n < infos.size(); n++) CHECK(infos[n - 1].since_ms <= infos[n].since_ms);
  }
}

TEST("a queue that leads back to itself, past waiters that were passed over, is found corrupt") {
  harness::Segment segment;
  Member one(segment.name());
  const Ref holder = one.open("lock");
  const Ref first = one.open("lock");
  const Ref last = one.open("lock");
  const Ref next = one.open("lock");
  CHECK_EQ(one.acquire(holder, Mode::kExclusive), Try::kAcquired);
  CHECK_EQ(one.queue(first, Mode::kShared), Status::kAgain);
  CHECK_EQ(one.queue(last, Mode::kShared), Status::kAgain);
  last.slot->flags.fetch_or(proclock::kSlotSkipped, std::memory_order_relaxed);
  last.slot->queue_prev.store(last.slot_index, std::memory_order_relaxed);
  CHECK_EQ(one.arena->enqueue(next, Mode::kShared, 0), Status::kCorrupt);
  one.vanish();
}

TEST("names that together are longer than there is room for are found corrupt, and not read") {
  constexpr uint32_t kLocks = 400;
  harness::Segment segment;
  Member one(segment.name());
  for (uint32_t n = 0; n < kLocks; n++) {
    const Ref ref = one.open(std::to_string(n) + std::string(100, 'n'));
    CHECK_EQ(one.acquire(ref, Mode::kShared), Try::kAcquired);
    ref.lock->name_bytes.store(proclock::kNameUsed | proclock::kNameBytesMax, std::memory_order_relaxed);
    const uint32_t extent = ref.lock->name_rest.load(std::memory_order_relaxed);
    Auditor(one.memory.base()).extent(extent).next.store(extent, std::memory_order_relaxed);
  }
  std::vector<proclock::HolderInfo> infos;
  std::unordered_map<uint32_t, proclock::LockName> names;
  CHECK_EQ(one.arena->snapshot_all(&infos, &names), Status::kCorrupt);
  size_t bytes = 0;
  for (const auto& name : names) bytes += name.second.bytes.size();
  CHECK(bytes <= size_t{1} << 27);
  one.vanish();
}

TEST(
    "a list that leads back to itself in a table that says it is full is found corrupt before much is "
    "collected") {
  for (const bool doorbell : {false, true}) {
    harness::Segment segment;
    Member one(segment.name());
    const Ref ref = one.open("lock");
    CHECK_EQ(one.acquire(ref, Mode::kShared), Try::kAcquired);
    auto& slots = one.arena->header().slots;
    slots.used.store(proclock::kSlotsMax, std::memory_order_relaxed);
    slots.reserved.store(proclock::kSlotsMax, std::memory_order_relaxed);
    std::vector<proclock::HolderInfo> infos;
    std::vector<uint32_t> poked;
    if (doorbell) {
      ref.slot->poked_next.store(ref.slot_index, std::memory_order_relaxed);
      Auditor(one.memory.base())
          .process(one.arena->self())
          .poked_head.store(ref.slot_index, std::memory_order_relaxed);
      CHECK_EQ(one.arena->take_poked(&poked), Status::kCorrupt);
    } else {
      ref.slot->lock_next.store(ref.slot_index, std::memory_order_relaxed);
      CHECK_EQ(one.arena->snapshot(ref.lock_index, &infos), Status::kCorrupt);
    }
    CHECK(infos.size() <= proclock::kSlotsMax && poked.size() <= proclock::kSlotsMax);
    one.vanish();
  }
}

}  // namespace
