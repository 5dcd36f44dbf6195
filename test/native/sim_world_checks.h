// How the truth is compared with what the segment says: at any moment, when all sleep, and when all is over.
#pragma once

#include "sim_world.h"

namespace sim {

// Nobody does anything: whoever is first in a queue must be kept out by somebody who holds. If somebody is stopped, it may
// be the one to do something about it, or nobody may have asked yet who has died; but not for ever.
inline void World::quiet() {
  counts.quiets++;
  const uint32_t unresponsive = count_unresponsive();
  const bool somebody_stopped = unresponsive != 0;
  // What a dead owner of the latch has left half done is mended by the next that wants to get in, which is asked for by those
  // that wait, not by those that died.
  const bool dead_inside = proclock::latch_owner(Segment::get().header().latch.latest()) != 0;
  const bool at_once = !somebody_stopped && !slow_detection && !dead_inside;
  const uint64_t patience_ns = (slow_detection || dead_inside ? kNoticedNs : 0) +
                               (unresponsive == 0 ? 0 : (unresponsive + 1) * kPassedOverNs);
  for (int n = 0; n < kNamesMax; n++) {
    Truth& truth = truths[n];
    if (!sleeps_for_nothing(n, somebody_stopped)) {
      truth.idle_since_ns = 0;
      continue;
    }
    if (at_once) the_machine.fail("a waiter sleeps, and nobody keeps it out");
    if (truth.idle_since_ns == 0) truth.idle_since_ns = the_machine.now_ns;
    if (next_ns() - truth.idle_since_ns > patience_ns)
      the_machine.fail(unresponsive == 0 ? "a waiter sleeps for too long, and nobody keeps it out"
                                         : "a stopped waiter holds up the others");
  }
}

// After everybody has ended: one more comes, and finds everything in order.
inline void World::inspect() {
  {
    Segment::get().full = false;
    Host& inspector = add_host();
    inspector.attach();
    for (uint32_t index = 1; index <= inspector.arena->processes_used(); index++) {
      SIM_CHECK(inspector.arena->recover_if_dead(index) == Status::kOk);
    }
    for (int n = 0; n < kNamesMax; n++) inspect_lock(inspector, n);
    const Census census = BasicAuditor<Platform>(Segment::get().base()).check();
    SIM_CHECK(census.slots == 0);
    SIM_CHECK(census.queued == 0);
    SIM_CHECK(census.retired == 0);
    SIM_CHECK(census.storages == census.locks);
    SIM_CHECK(census.processes == 1);
    SIM_CHECK(inspector.arena->detach() == Status::kOk);
  }
}

inline void World::inspect_lock(Host& inspector, int n) {
  Arena& arena = *inspector.arena;
  const std::string text = name(n);
  SlotRef ref, other;
  SIM_CHECK(arena.open_lock(name_of(text), 7, &ref) == Status::kOk);
  SIM_CHECK(arena.bind(ref.lock_index, 8, &other) == Status::kOk);
  uint64_t token = 0, last = 0;
  SIM_CHECK(arena.try_acquire(ref, Mode::kExclusive, Turn::kInOrder, &token) == Try::kAcquired);
  SIM_CHECK(token > truths[n].token);
  const bool abandoned = ref.lock->abandoned.latest() != 0;
  if (truths[n].abandoned != Truth::Mark::kEither)
    SIM_CHECK(abandoned == (truths[n].abandoned == Truth::Mark::kYes));
  SIM_CHECK(arena.try_acquire(other, Mode::kShared, Turn::kMayOvertake, &last) == Try::kBusy);
  SIM_CHECK(arena.finish(ref, proclock::Finished::kRepair) == Status::kOk);
  SIM_CHECK(arena.release(ref) == Status::kOk);
  SIM_CHECK(arena.try_acquire(ref, Mode::kShared, Turn::kInOrder, &last) == Try::kAcquired);
  SIM_CHECK(last == token);
  SIM_CHECK(arena.try_acquire(other, Mode::kShared, Turn::kInOrder, &last) == Try::kAcquired);
  SIM_CHECK(arena.release(ref) == Status::kOk);
  SIM_CHECK(arena.release(other) == Status::kOk);
  SIM_CHECK(arena.unbind(other) == Status::kOk);
  SIM_CHECK(arena.unbind(ref) == Status::kOk);
}

// Where nobody is stopped, dies or leaves: strict FIFO for who asked for it, and for everybody else one barge interval after the front changed. Only where reads are
// not old: a newcomer that has not seen the queue yet may pass it.
inline void World::check_overtaking(const Truth& truth, int me, Mode mode, uint64_t begun_ns) {
  if (the_machine.plan().weak || the_machine.stops != 0 || the_machine.deaths != 0 || anybody_left) return;
  for (int other = 0; other < kActorsMax; other++) {
    const Truth::Wait& wait = truth.waits[other];
    if (other == me || !wait.in || wait.suspect) continue;
    if (wait.upgrades && proclock::phase_of(wait.slot->word.latest()) == Phase::kStolen) continue;
    if (mode == Mode::kShared && wait.mode == Mode::kShared) continue;
    if (wait.fair && begun_ns > wait.since_ns) the_machine.fail("a fair waiter was overtaken by a later one");
    // Whoever was in the middle of its try has ended that by then.
    if (wait.upgrades && begun_ns != 0 && the_machine.now_ns > wait.since_ns + kTickNs)
      the_machine.fail("somebody got in beside a holder that is to be upgraded");
    if (truth.leaving != 0 || begun_ns <= std::max(wait.since_ns, truth.left_ns) + Arena::kBargeNs) continue;
    the_machine.fail("a waiter was overtaken for too long");
  }
}

// Is there a waiter that is awake, so to say, and whom nobody keeps out?
inline bool World::sleeps_for_nothing(int n, bool somebody_stopped) const {
  const BasicAuditor<Platform> auditor(Segment::get().base());
  const uint32_t lock = index_of(n);
  if (lock == 0) return false;
  uint32_t first = auditor.lock(lock).queue_head.latest();
  const uint32_t used = Segment::get().header().slots.used.latest();
  for (uint32_t n = 0; n < used && first != 0 && !is_awake(first); n++)
    first = auditor.slot(first).queue_next.latest();
  if (first == 0 || !is_awake(first)) return false;
  const Mode mode =
      (auditor.slot(first).flags.latest() & proclock::kSlotExclusive) != 0 ? Mode::kExclusive : Mode::kShared;
  for (const Truth::Hold& hold : truths[n].holds) {
    // One that is to be upgraded holds as well.
    if (hold.slot != &auditor.slot(first) && hold.excludes(mode)) return false;
  }
  if (!somebody_stopped) return true;
  // Stopped in the middle of an acquire or a release.
  for (uint32_t index = 1; index <= Segment::get().header().slots.used.latest(); index++) {
    if (auditor.slot(index).lock.latest() == lock && proclock::refers(auditor.slot(index).word.latest()))
      return false;
  }
  return true;
}

// Neither dead, which nobody has to know yet, nor stopped.
inline bool World::is_awake(uint32_t slot) const {
  const BasicAuditor<Platform> auditor(Segment::get().base());
  const auto& entry = auditor.slot(slot);
  const uint64_t word = entry.word.latest();
  const Process* owner = Segment::get().owner_of(word);
  if (owner == nullptr || !owner->open || proclock::is_left(word) || is_unserved(slot)) return false;
  if ((entry.flags.latest() & proclock::kSlotGranted) != 0) return false;  // it has what it waited for
  for (const Actor& actor : the_machine.actors()) {
    if (actor.state == State::kStopped && static_cast<uint32_t>(actor.id) == entry.thread.latest())
      return false;
  }
  return true;
}

// A slot holds exactly when its word says HELD: so no two words of those who live may say it that exclude each other, at
// any moment.
inline void World::check_held(const void* word, uint64_t value) {
  const BasicAuditor<Platform> auditor(Segment::get().base());
  const uint32_t used = Segment::get().header().slots.used.latest();
  if (word < &auditor.slot(1) || word > &auditor.slot(used) || reinterpret_cast<uintptr_t>(word) % 64 != 0)
    return;
  const uint32_t lock = reinterpret_cast<const proclock::Slot<Platform>*>(word)->lock.latest();
  for (uint32_t index = 1; index <= used; index++) {
    const auto& slot = auditor.slot(index);
    if (&slot.word == word || slot.lock.latest() != lock || !proclock::is_held(slot.word.latest())) continue;
    const Process* process = Segment::get().owner_of(slot.word.latest());
    if (process == nullptr || !process->open) continue;
    if (proclock::holds(value, Mode::kExclusive) || proclock::holds(slot.word.latest(), Mode::kExclusive)) {
      the_machine.fail("two slots say HELD that exclude each other");
    }
  }
}

// INV-3: nobody alive refers to a storage that is made new; but for a TRYING that was stored late, by somebody who was
// stopped after A1, and whose A3 fails. Whoever got past A3 was made STALE by V2.
inline void World::check_initialise(const Platform::RwLock* rwlock) {
  const BasicAuditor<Platform> auditor(Segment::get().base());
  const size_t offset =
      reinterpret_cast<const char*>(rwlock) - Segment::get().base() - Segment::Layout::kStorages;
  const uint32_t storage = static_cast<uint32_t>(offset / sizeof(proclock::Storage<Platform>)) + 1;
  const uint32_t used = Segment::get().header().slots.used.latest();
  for (uint32_t index = 1; index <= used; index++) {
    const auto& slot = auditor.slot(index);
    const uint64_t word = slot.word.latest();
    if (slot.lock.latest() == 0) continue;
    if (!proclock::refers(word) || proclock::storage_of(word) != storage) continue;
    if (proclock::phase_of(word) == Phase::kTrying || proclock::is_left(word)) continue;
    const Process* process = Segment::get().owner_of(word);
    if (process != nullptr && process->open)
      the_machine.fail("a storage is initialised though a slot refers to it (INV-3)");
  }
}

inline void World::unnamed(const void* word) {
  const BasicAuditor<Platform> auditor(Segment::get().base());
  const uint32_t used = Segment::get().header().locks.used.latest();
  uint32_t reclaimed = 0;
  bool other_room = !Segment::get().full;
  for (uint32_t index = 1; index <= used; index++) {
    const auto& lock = auditor.lock(index);
    if (&lock.name_bytes == word) {
      reclaimed = index;
    } else if ((lock.name_bytes.latest() & proclock::kNameUsed) != 0 && lock.slots_head.latest() == 0 &&
               lock.abandoned.latest() == 0) {
      other_room = true;
    }
  }
  if (reclaimed == 0 || auditor.lock(reclaimed).abandoned.latest() == 0) return;
  if (other_room) the_machine.fail("a mark made room, and there was other room");
  const int n = the_world.number_of(reclaimed);
  if (n < 0) return;
  the_world.truths[n].abandoned = Truth::Mark::kNo;
  the_world.truths[n].looks++;
  the_world.counts.marks_dropped++;
}

}  // namespace sim
