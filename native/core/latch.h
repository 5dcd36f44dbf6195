// The latch: the namespace's own short lock, behind which everything but the slot words, the gates and the wake words is
// changed.
//
// What it guarantees. One owner among those that live. The latch of an owner that died is taken over by whoever notices,
// and everything derived is rebuilt before anybody uses it. A contender that is killed, stopped or impatient holds up
// nobody. As long as its owner is *alive and stopped* nobody gets in: every operation says kStalled, has done nothing, and
// is to be called again. No content of the word can do more than that, or end the namespace with kCorrupt.
//
// Workload and cost. It is held for microseconds, and entered by every acquire that has to wait. Uncontended: two
// compare-and-swaps and no system call. A sleep is one CAS and one futex call, a release that others sleep for one futex call.
//
// The word (words.h) names the owner by a *number* that is never used again, and says whether somebody may sleep (WAITERS),
// whether the content is to be rebuilt (DIRTY), whether it is beyond that (CORRUPT). Owner and phase change in one step, so
// no death can lose either. A free word never has WAITERS. The number's token, which the kernel takes away when the process
// is gone, is locked before the latch is ever entered. (Table indices will not do for a name: they come again, and no look
// at the kernel's lock and at the memory is one step. A newcomer that is stopped between the two makes a dead owner look
// alive for as long as it is stopped; native/model/latch.pml has it.)
//
//    N1  number := last_number + 1, by fetch_add
//    N2  lock its token. It is taken only if the content is foreign: again from N1. Both while the attach phase keeps
//        anybody from making the segment anew, and before the first L1: who is inside without a token is believed dead
//    L1  CAS 0 -> {me}: the whole uncontended path. It fails for every phase but clean
//    L2  spin a little. A free word is taken with its phase; with WAITERS if we have slept, since others may still sleep and
//        nothing else remembers them. Free and CORRUPT: leave, with the error
//    L3  a word with an owner: CAS WAITERS into it, never into one that has become free. Who runs out of patience leaves
//        here, and not before: who was woken and left before L2 and L3 would take the wake with it
//    L4  sleep for as long as the low half says what L3 wrote or found; 1 ms at first, doubling to 50 ms (not anew with each new
//        owner: a thousand contenders would do nothing but wake up)
//    L5  the time has passed, and the word still has an owner: one sleeper asks. CAS `asked` from what it said before L4 to
//        that plus one; who fails sleeps again, since somebody has just asked. A turn, not a lock: a winner that dies or
//        stops costs one period. Who can not ask takes no turn
//    L6  is the owner that was seen *before the question* dead? Its token is free, or its entry's pid and start time say so,
//        or it is called by our own number: the threads of a process take a mutex of their own before L1, which they have
//        in every step but L4, so that one of them at a time is in here, and a word with our number is somebody's nonsense
//    L7  CAS exactly that value -> {me, DIRTY, WAITERS}. Failed with the same owner (WAITERS was set meanwhile): again without
//        a question, since dead is for ever. Another owner: L2
//    L8  inside with DIRTY: rebuild, then work. DIRTY stays until L9 of somebody who finished
//    L9  CAS {me, phase} -> {0, what is left to be done}. A CAS, because WAITERS can come at any time; it fails for no other
//        reason. Another owner: we were taken for dead, and touch nothing more
//    L10 if L9 saw WAITERS, wake one; if it left CORRUPT, wake all, whatever the bit says: the one just woken leaves by L2 and
//        wakes nobody
//
// A word that names somebody who lives and is not inside is nonsense that others can not tell from a stop: only that process
// can, by L6, and does with its next entry or tick (detect.h); if it has found the namespace corrupt before, and enters no more,
// with its next call (stay_out). Until then it is a stall, which may last. So what a call has waited for once is not waited for
// again as long: who gave up remembers the owner (waited_in_vain), and the next ones have less patience with that one, down to
// kStuckPatienceNs. They have all of it again as soon as the word was seen to name anybody else, or nobody, or somebody here got
// in: then it was a stop, and that is over.
//
// CORRUPT stays: nobody builds on half a rebuild. Only a newcomer that finds nobody alive makes such a segment anew.
//
// Memory orders. One word, so no store-load pair and no seq_cst. L1, L2 and L7 acquire what L9 released: all that was done
// inside. L3 is relaxed: a read-modify-write continues L9's release sequence, and hands nothing over. L4 and L10 are ordered
// by the kernel, which compares and queues under one lock. L7 needs what the dead one wrote as well: it left user space before
// its token was dropped, and the token is dropped and asked about under one lock of the kernel.
#pragma once

#include "arena.h"

namespace proclock {

// Holds the latch, or says why not: kStalled, kCorrupt.
template <class P>
class Arena<P>::Latched {
 public:
  explicit Latched(Arena& arena) : arena_(arena), refused_(arena.enter_latch()) {
    if (ok(refused_)) arena.enter_tables(*this);
  }
  ~Latched() {
    if (ok(refused_)) arena_.leave_latch();
  }
  Latched(const Latched&) = delete;
  Latched& operator=(const Latched&) = delete;

  // kOk, or what was found to be wrong so far.
  Status status() const {
    if (!ok(refused_)) return refused_;
    if (arena_.fault_) return Status::kCorrupt;
    // There was no memory to rebuild with: nothing was done, and the next one that enters begins anew.
    return arena_.incomplete_ ? Status::kStalled : Status::kOk;
  }

 private:
  Arena& arena_;
  const Status refused_;
};

template <class P>
Status Arena<P>::enter_latch() {
  local_.lock();
  uint64_t word = 0;
  const uint64_t ours = latch_word(memory_.number());
  // L1. acquire: L9 of whoever was inside last.
  if (!header_->latch.compare_exchange_strong(word, ours, std::memory_order_acquire)) {
    const Status status = enter_latch_slow();
    if (!ok(status)) {
      local_.unlock();
      return status;
    }
    word = header_->latch.load(std::memory_order_relaxed);
  }
  dirty_ = (word & kLatchDirty) != 0;
  return Status::kOk;
}

// For how long this entry is to wait. A namespace in which somebody was stopped inside costs each call of this process its
// patience once in a while, not each of many calls, one after the other.
template <class P>
uint64_t Arena<P>::latch_patience(uint64_t now_ns) const {
  if (Patience::until_ns() != 0) return Patience::until_ns() > now_ns ? Patience::until_ns() - now_ns : 0;
  return now_ns < stalled_until_ns_.load(std::memory_order_relaxed) ? 0 : P::latch_patience_ns;
}

// For how long a call that is to be done now or never waits for this owner of the latch.
template <class P>
uint64_t Arena<P>::patience_with(uint64_t owner) const {
  return is_stuck_with(owner) ? stuck_patience_ns_.load(std::memory_order_relaxed) : kPatienceNs;
}

// relaxed, like all of this: whoever goes by an old value waits shorter or longer.
template <class P>
bool Arena<P>::is_stuck_with(uint64_t owner) const {
  return owner != 0 && stuck_with_.load(std::memory_order_relaxed) == owner;
}

// Such a call has found the latch with this owner, and at the end of its patience again.
template <class P>
void Arena<P>::waited_in_vain(uint64_t owner) {
  if (owner == 0 || owner_inside() != owner) return;
  const uint64_t shorter = std::max(patience_with(owner) / 4, kStuckPatienceNs);
  stuck_patience_ns_.store(shorter, std::memory_order_relaxed);
  stuck_with_.store(owner, std::memory_order_relaxed);
}

template <class P>
void Arena<P>::goes_on() {
  if (stuck_with_.load(std::memory_order_relaxed) != 0) stuck_with_.store(0, std::memory_order_relaxed);
}

template <class P>
Status Arena<P>::enter_latch_slow() {
  Atomic<uint64_t>& latch = header_->latch;
  const uint64_t me = memory_.number();
  bool has_slept = false;
  int spins = P::can_spin() ? kLatchSpins : 0;
  uint64_t deadline_ns = 0;
  uint64_t period_ns = kLatchPeriodMinNs;
  for (uint32_t looks = 1;; looks++) {
    // Whatever somebody does to the word meanwhile: patience ends.
    if (looks % kLatchLooksMax == 0) {
      const uint64_t now = P::monotonic_ns();
      if (deadline_ns == 0) deadline_ns = now + latch_patience(now);
      if (now >= deadline_ns) return Status::kStalled;
    }
    // L2
    uint64_t word = latch.load(std::memory_order_relaxed);
    const uint64_t owner = latch_owner(word);
    if (!is_stuck_with(owner)) goes_on();
    if (owner == 0) {
      if ((word & kLatchCorrupt) != 0) return Status::kCorrupt;
      const uint64_t taken = latch_word(me) | (word & kLatchDirty) | (has_slept ? kLatchWaiters : 0);
      if (latch.compare_exchange_strong(word, taken, std::memory_order_acquire)) return Status::kOk;
      continue;
    }
    if (spins-- > 0) {
      P::pause();
      continue;
    }
    // L3
    if ((word & kLatchWaiters) == 0) {
      if (!latch.compare_exchange_strong(word, word | kLatchWaiters, std::memory_order_relaxed)) continue;
      word |= kLatchWaiters;
    }
    uint64_t now = P::monotonic_ns();
    if (deadline_ns == 0) deadline_ns = now + latch_patience(now);
    if (now >= deadline_ns) {
      if (Patience::until_ns() == 0 && now >= stalled_until_ns_.load(std::memory_order_relaxed))
        stalled_until_ns_.store(now + P::latch_pause_ns, std::memory_order_relaxed);
      return Status::kStalled;
    }

    const uint32_t asked = header_->asked.load(std::memory_order_relaxed);
    const uint64_t until_ns = std::min(deadline_ns, now + period_ns);
    // L4. Other threads of this process have a patience of their own.
    local_.unlock();
    P::wait(&latch, static_cast<uint32_t>(word), until_ns);
    local_.lock();
    has_slept = true;
    now = P::monotonic_ns();
    if (now < until_ns) continue;
    period_ns = std::min(2 * period_ns, kLatchPeriodMaxNs);
    // L5
    uint64_t seen = latch.load(std::memory_order_relaxed);
    if (latch_owner(seen) == 0 || !memory_.can_ask()) continue;
    uint32_t turn = asked;
    if (!header_->asked.compare_exchange_strong(turn, asked + 1, std::memory_order_relaxed)) continue;
    // L6
    const uint64_t suspect = latch_owner(seen);
    if (suspect != me && !is_dead(suspect)) continue;
    // L7. acquire: see the top.
    while (latch_owner(seen) == suspect) {
      if (latch.compare_exchange_strong(seen, latch_word(me) | kLatchDirty | kLatchWaiters,
                                        std::memory_order_acquire)) {
        return Status::kOk;
      }
    }
  }
}

// L8
template <class P>
void Arena<P>::enter_tables(const Latched& latched) {
  fault_ = false;
  incomplete_ = false;
  steps_left_ = kStepsMin;
  steps_extended_ = false;
  goes_on();
  if (dirty_) rebuild(latched);
}

template <class P>
void Arena<P>::leave_latch() {
  std::vector<uint32_t> poked;
  std::vector<Atomic<uint32_t>*> wakes;
  poked.swap(poked_here_);
  wakes.swap(wakes_);
  const uint64_t left_to_do = fault_ ? kLatchCorrupt : (incomplete_ ? kLatchDirty : 0);
  Atomic<uint64_t>& latch = header_->latch;
  uint64_t word = latch.load(std::memory_order_relaxed);
  bool is_ours = true;
  do {
    is_ours = latch_owner(word) == memory_.number();
  } while (
      is_ours &&  // L9. release: all that was done inside.
      !latch.compare_exchange_weak(word, left_to_do, std::memory_order_release, std::memory_order_relaxed));
  if (!is_ours) {  // taken for dead: the space is lost
    robbed_.store(true, std::memory_order_relaxed);
    local_.unlock();
    return;
  }
  // L10
  if (left_to_do == kLatchCorrupt) {
    P::wake(&latch, true);
  } else if ((word & kLatchWaiters) != 0) {
    P::wake(&latch, false);
  }
  local_.unlock();
  for (Atomic<uint32_t>* wake : wakes) P::wake(wake);
  if (!poked.empty()) sink_.poked(poked);
}

// Is the process of this number known to be gone? Its entry, if it has one, is looked for without the latch, and believed
// only where it names this very number.
template <class P>
bool Arena<P>::is_dead(uint64_t number) {
  if (memory_.liveness(number) == Liveness::kDead) return true;
  for (uint32_t index = 1; index <= used(processes_); index++) {
    const Process<P>* entry = find(processes_, index);
    if (entry == nullptr || entry->number.load(std::memory_order_relaxed) != number) continue;
    ProcessIdentity identity;
    uint64_t named;
    return read_process(index, &identity, &named) && named == number &&
           memory_.liveness(identity) == Liveness::kDead;
  }
  return false;
}

// Is the namespace beyond use? Needs no latch.
template <class P>
bool Arena<P>::is_corrupt() const {
  return (header_->latch.load(std::memory_order_relaxed) & kLatchCorrupt) != 0 ||
         robbed_.load(std::memory_order_relaxed);
}

// For a fault that was found without the latch: it stays.
template <class P>
Status Arena<P>::condemn() {
  Latched latched(*this);
  if (ok(latched.status())) fault_ = true;
  return Status::kCorrupt;
}

// For whoever has found the namespace beyond use, and enters no more. Should the word name this process all the same, since what
// it said was written over, the others would wait for it for ever.
template <class P>
void Arena<P>::stay_out() {
  if (owner_inside() == memory_.number()) condemn();
}

}  // namespace proclock
