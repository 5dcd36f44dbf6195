// What is shown of a namespace beyond its holders and waiters: the marks of dead holders, and a place in the queue.
#include "world.h"

using harness::Segment;
using proclock::MarkedLock;

namespace {
constexpr Mode kS = Mode::kShared;
constexpr Mode kX = Mode::kExclusive;

std::vector<MarkedLock> marks_of(Member& member) {
  std::vector<MarkedLock> marks;
  CHECK_EQ(member.arena->snapshot_marks(&marks), Status::kOk);
  return marks;
}
}  // namespace

TEST(
    "the mark of a dead holder is shown with its name, whether anybody has it open or not, until it is "
    "repaired") {
  Segment segment;
  Member member(segment.name());
  Member dead(segment.name());
  const std::string name(1000, 'n');  // longer than what an entry has room for
  const Ref held = dead.open(name, 3);
  const Ref shared = dead.open("shared");
  CHECK_EQ(dead.acquire(held, kX), Try::kAcquired);
  CHECK_EQ(dead.acquire(shared, kS), Try::kAcquired);
  CHECK_EQ(marks_of(member).size(), 0u);
  dead.vanish();

  std::vector<proclock::HolderInfo> infos;
  std::unordered_map<uint32_t, proclock::LockName> names;
  CHECK_EQ(member.arena->snapshot_all(&infos, &names), Status::kOk);  // finds it dead
  CHECK_EQ(infos.size(), 0u);
  const std::vector<MarkedLock> marks = marks_of(member);
  CHECK_EQ(marks.size(), 1u);
  CHECK(marks[0].name.bytes == name && !marks[0].name.utf16);
  CHECK_EQ(marks[0].mark.thread, 3u);

  const Ref repairer = member.open(name);
  CHECK_EQ(member.acquire(repairer, kX), Try::kAcquired);
  CHECK_EQ(marks_of(member).size(), 1u);
  CHECK_EQ(member.arena->finish(repairer, proclock::Finished::kRepair), Status::kOk);
  CHECK_EQ(marks_of(member).size(), 0u);
  member.release(repairer);
  member.unbind(repairer);
}

TEST("a place in the queue is how many wait ahead") {
  Segment segment;
  Member member(segment.name());
  const Ref holder = member.open("queue");
  CHECK_EQ(member.acquire(holder, kX), Try::kAcquired);
  std::vector<Ref> waits;
  for (uint32_t i = 0; i < 3; i++) {
    waits.push_back(member.bind(holder));
    CHECK_EQ(member.queue(waits[i], i == 1 ? kS : kX), Status::kAgain);
  }
  const auto place = [&](const Ref& ref) {
    uint32_t ahead = ~0u;
    CHECK_EQ(member.arena->place(ref, &ahead), Status::kOk);
    return ahead;
  };
  for (uint32_t i = 0; i < 3; i++) CHECK_EQ(place(waits[i]), i);
  CHECK_EQ(member.arena->withdraw(waits[0]), Status::kOk);
  CHECK_EQ(place(waits[1]), 0u);
  CHECK_EQ(place(waits[2]), 1u);
  for (uint32_t i = 1; i < 3; i++) CHECK_EQ(member.arena->withdraw(waits[i]), Status::kOk);
  for (const Ref& wait : waits) member.unbind(wait);
  member.release(holder);
  member.unbind(holder);
}
