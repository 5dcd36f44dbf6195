// Whom nobody keeps out does not sleep: how long it may take until whoever can be granted is, and how that is looked at.
#pragma once

#include "sim_runtime_world.h"

namespace sim {

// ---- how long it may take until whoever can be granted is, counted from the moment at which the last fault was over

// Whoever can sleep on one word alone looks at the others once a tick.
constexpr uint64_t kPolledNs = kTickNs;
// Whoever serves has so much patience with another namespace, of which the latch's owner is stopped or dead.
constexpr uint64_t kStalledElsewhereNs = 2 * proclock::kServePatienceNs;
// Whoever has left the latch, and died before it could wake the next one. That one looks by itself in the end (L4 in latch.h).
constexpr uint64_t kUnwokenNs = proclock::Arena<RuntimePlatform>::kLatchPeriodMaxNs;
// Whoever has found a latch stalled when it wanted to see who was poked comes again in 5 ms.
constexpr uint64_t kServedAgainNs = 10 * kMs;
// Whoever is told by its doorbell, however little its system can do.
constexpr uint64_t kToldOfTheftNs = kPolledNs + 2 * kServeNs;
// One that does not react is seen at one tick, and passed over at the next one; ticks are counted from each process's own.
constexpr uint64_t kPassedOverNs = 3 * kTickNs;
// A death of which no pidfd tells. Where all is quiet the namespace ticks once in kQuietTickNs, and who finds at its tick that
// somebody else has had a turn does nothing: so there is a turn in each kQuietTickNs, and another one if whoever had it has died
// in the middle.
constexpr uint64_t kNoticedNs = 2 * proclock::kQuietTickNs + 4 * kTickNs;

// ---- progress

inline uint64_t World::bound_ns(int lock) const {
  uint64_t bound_ns = 0;
  uint64_t unresponsive = 0;
  for (const Thread* thread : threads) {
    if (!thread->lives()) continue;
    const bool absent = thread->is_busy() || thread->host().stopped_until_ns != 0;
    unresponsive += absent && is_queued(lock, *thread);
    const bool served = the_machine.peek([&] { return thread->host().runtime->is_served(); });
    if (!served || thread->retries()) bound_ns = std::max(bound_ns, 2 * kServeNs);
    if (thread->host().conditions.no_wait_for_many) bound_ns = std::max(bound_ns, kPolledNs);
  }
  for (int n = 0; n < kNamespacesMax; n++) {
    if (is_absent(latch_owner(n))) bound_ns += n == lock / kNamesEach ? kNoticedNs : kStalledElsewhereNs;
  }
  if (the_machine.gone != 0 && sleeps_for_latch(lock / kNamesEach)) bound_ns += kUnwokenNs;
  if (the_machine.stops + the_machine.gone != 0) bound_ns += kServedAgainNs;
  if (unresponsive != 0) bound_ns += (unresponsive + 1) * kPassedOverNs;
  if (is_anybody_faulty(lock) || is_owed_by_busy(lock)) bound_ns += kNoticedNs;
  return bound_ns;
}

inline bool World::is_queued(int lock, const Thread& thread) const {
  const Segment& segment = RuntimePlatform::segment(lock / kNamesEach);
  const Auditor auditor(segment.base());
  const uint32_t lock_index = index_of(lock);
  for (uint32_t index = 1; index <= segment.header().slots.used.latest(); index++) {
    const auto& slot = auditor.slot(index);
    if (slot.lock.latest() == lock_index && slot.thread.latest() == thread.number() &&
        (slot.flags.latest() & proclock::kSlotQueued) != 0)
      return true;
  }
  return false;
}

// Is a process in the queue, or among the holders, that is stopped or dead, or a thread of which has ended?
inline bool World::is_anybody_faulty(int lock) const {
  const Segment& segment = RuntimePlatform::segment(lock / kNamesEach);
  const Auditor auditor(segment.base());
  const uint32_t lock_index = index_of(lock);
  for (uint32_t index = 1; index <= segment.header().slots.used.latest(); index++) {
    const auto& slot = auditor.slot(index);
    const uint64_t word = slot.word.latest();
    const Process* owner = segment.owner_of(word);
    if (slot.lock.latest() != lock_index) continue;
    if (proclock::is_left(word)) return true;
    const bool involved = proclock::refers(word) || (slot.flags.latest() & proclock::kSlotQueued) != 0;
    if (involved && is_absent(owner)) return true;
  }
  return false;
}

// Who listens to a theft is told at once, unless the thief has died before it could.
inline void World::check_thefts() {
  for (Thread* thread : threads) {
    const bool thief_died = std::any_of(std::begin(truths), std::end(truths), [](const Truth& truth) {
      return truth.thief_died || !truth.thieves.empty();
    });
    if (!thread->lives() || thread->is_busy() || thread->host().stopped_until_ns != 0 || thief_died ||
        !thread->misses_theft()) {
      thread->misses_since_ns = 0;
      continue;
    }
    if (thread->misses_since_ns == 0) thread->misses_since_ns = the_machine.now_ns;
    const uint64_t since_ns = std::max(thread->misses_since_ns, the_machine.last_fault_ns);
    if (the_machine.now_ns - since_ns > kToldOfTheftNs) the_machine.fail("nobody is told of a theft");
  }
}

inline void World::check() {
  if (the_machine.now_ns > kLongestNs) the_machine.fail("does not end");
  check_thefts();
  for (int lock = 0; lock < kLocksMax; lock++) {
    Truth& truth = truths[lock];
    // As long as the latch's owner is stopped nobody gets in.
    const Process* inside = latch_owner(lock / kNamesEach);
    const bool stalled = inside != nullptr && inside->stopped_until_ns != 0;
    if (stalled || !sleeps_for_nothing(lock)) {
      truth.idle_since_ns = 0;
      continue;
    }
    // What a dead one has left is recovered: from now on nothing of that keeps anybody waiting.
    const bool faulty = is_anybody_faulty(lock) || is_owed_by_busy(lock) || is_absent(inside);
    if (truth.idle_since_ns == 0 || (truth.was_faulty && !faulty)) truth.idle_since_ns = the_machine.now_ns;
    truth.was_faulty = faulty;
    const uint64_t since_ns = std::max(truth.idle_since_ns, the_machine.last_fault_ns);
    const uint64_t idle_ns = the_machine.now_ns - since_ns;
    counts.longest_ns = std::max(counts.longest_ns, idle_ns);
    const uint64_t most_ns = bound_ns(lock);
    if (most_ns != 0 && idle_ns <= most_ns) continue;
    if (the_machine.verbose) print(lock);
    the_machine.fail("a waiter sleeps, and nobody keeps it out");
  }
}

// Is there a waiter that is awake, so to say, and whom nobody keeps out? One that is not awake keeps out nobody, once it could have
// got in itself.
inline bool World::sleeps_for_nothing(int lock) const {
  const Segment& segment = RuntimePlatform::segment(lock / kNamesEach);
  const Auditor auditor(segment.base());
  const uint32_t lock_index = index_of(lock);
  if (lock_index == 0) return false;
  const uint32_t used = segment.header().slots.used.latest();
  uint32_t held = 0;
  bool held_exclusively = false;
  for (uint32_t index = 1; index <= used; index++) {
    const auto& slot = auditor.slot(index);
    const uint64_t word = slot.word.latest();
    const Process* owner = segment.owner_of(word);
    if (slot.lock.latest() != lock_index || owner == nullptr || !owner->open) continue;
    held += proclock::is_held(word);
    held_exclusively = held_exclusively || proclock::holds(word, Mode::kExclusive);
    // Stopped in the middle of an acquire, or of a release that has not unlocked yet.
    const bool unlocked = proclock::phase_of(word) == Phase::kReleasing &&
                          auditor.storage(proclock::storage_of(word)).rwlock.word.latest() == 0;
    if (proclock::refers(word) && !proclock::is_left(word) && !unlocked && owner->stopped_until_ns != 0)
      return false;
  }
  uint32_t waiter = auditor.lock(lock_index).queue_head.latest();
  for (uint32_t n = 0; n < used && waiter != 0; n++) {
    const uint32_t flags = auditor.slot(waiter).flags.latest();
    const bool is_over = (flags & proclock::kSlotGranted) != 0;
    // One that is to be upgraded holds as well.
    const uint32_t others = held - ((flags & proclock::kSlotUpgrading) != 0 && held != 0);
    if (!is_over && ((flags & proclock::kSlotExclusive) != 0 ? others != 0 : held_exclusively)) return false;
    if (is_awake(segment, waiter)) return true;
    waiter = auditor.slot(waiter).queue_next.latest();
  }
  return false;
}

// Neither dead, which nobody has to know yet, nor stopped, nor too busy to look.
inline bool World::is_awake(const Segment& segment, uint32_t slot) const {
  const Auditor auditor(segment.base());
  const auto& entry = auditor.slot(slot);
  const uint64_t word = entry.word.latest();
  const Process* owner = segment.owner_of(word);
  const uint32_t flags = entry.flags.latest();
  if (owner == nullptr || !owner->open || owner->dying || owner->stopped_until_ns != 0) return false;
  if (proclock::is_left(word) || (flags & proclock::kSlotGranted) != 0) return false;
  const Thread* thread = threads[entry.thread.latest()];
  return thread->lives() && !((flags & proclock::kSlotAsync) != 0 && thread->is_busy());
}

inline bool World::is_owed_by_busy(int lock) const {
  const Segment& segment = RuntimePlatform::segment(lock / kNamesEach);
  const Auditor auditor(segment.base());
  const uint32_t lock_index = index_of(lock);
  for (uint32_t index = 1; index <= segment.header().slots.used.latest(); index++) {
    const auto& slot = auditor.slot(index);
    const uint64_t word = slot.word.latest();
    if (slot.lock.latest() != lock_index || segment.owner_of(word) == nullptr || proclock::is_left(word))
      continue;
    const bool owed = (proclock::refers(word) && !proclock::is_held(word)) ||
                      (slot.flags.latest() & proclock::kSlotGranted) != 0;
    const Thread* thread = threads[slot.thread.latest()];
    if (owed && thread->lives() && thread->is_busy() && thread->retries()) return true;
  }
  return false;
}

// For whoever runs one schedule again.
inline void World::print(int lock) const {
  const Segment& segment = RuntimePlatform::segment(lock / kNamesEach);
  const Auditor auditor(segment.base());
  const uint32_t lock_index = index_of(lock);
  const auto& entry = auditor.lock(lock_index);
  const auto n = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  fprintf(stderr, "  lock %d: gate %llx, first %u, may be idle for %llu ns, latch %llx\n", lock,
          n(entry.gate.latest()), entry.queue_head.latest(), n(bound_ns(lock)),
          n(segment.header().latch.latest()));
  for (uint32_t index = 1; index <= segment.header().slots.used.latest(); index++) {
    const auto& slot = auditor.slot(index);
    if (slot.lock.latest() != lock_index) continue;
    const Process* owner = segment.owner_of(slot.word.latest());
    fprintf(stderr, "  slot %u of process %d, thread %u: phase %d, mode %d, flags %x, next %u\n", index,
            owner == nullptr ? -1 : owner->number, slot.thread.latest(),
            static_cast<int>(proclock::phase_of(slot.word.latest())),
            static_cast<int>(proclock::mode_of(slot.word.latest())), slot.flags.latest(),
            slot.queue_next.latest());
  }
  for (const Actor& actor : the_machine.actors()) {
    fprintf(stderr, "  actor %d of process %d: state %d until %llu (%s)\n", actor.id, actor.process->number,
            static_cast<int>(actor.state), n(actor.until_ns), actor.doing);
  }
}

}  // namespace sim
