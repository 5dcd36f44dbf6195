// How a death is noticed.
//
// Processes are asked about, not locks: an entry's token (latch.h) is free when its process can not touch the segment any
// more, also where the pid lives on in another program (exec). A token can outlive its process in a child of a raw fork,
// which shares the open file; so pid and start time are asked as well, where they mean something. Whatever the system can
// not answer is "alive": it is asked again.
//
// The work is shared by all processes that wait in the namespace: turns, not locks (native/model/detector.pml). Each ticks by
// its own clock.
//    D0  is the latch called by our own number? Either another thread of ours is in it, or the word is nonsense, which others
//        can not tell from a stop: enter it, which tells (latch.h, L6)
//    D1  a waiter sets the bits of the processes that it waits for
//    D2  the scan word has changed since the ticker's own last tick: somebody else had a turn. Done, one load. Who can not ask (a
//        host has closed our descriptor) is done as well: it must not take turns from those who can
//    D3  count the wanted bits, at most three quarters of k, then CAS {turn, cursor} -> {turn + 1, cursor + k - count}; who fails
//        is done
//    D4  is the latch's owner dead, or the latch free and DIRTY? Then enter it, which rebuilds. Nobody else might: an owner that
//        has no entry (a newcomer) is nobody whom the rest would ask about
//    D5  take the wanted, and clear each bit *before* its process is asked about: a wish that comes meanwhile is asked again. Then
//        the k - count entries behind the cursor
//    D6  ask, without the latch, which of them have died, or have slots of threads that ended
//    D7  enter the latch. Stalled: set the bits again
//    D8  ask again, and recover the dead
//    D9  take the mark of ended threads away, then recover what they have left
// k = max(16, used / 40), rounded up, and so many times more for a ticker that comes so many times more seldom: all of 2,047
// entries are asked within two seconds, all of 16 at each turn. So one process asks k questions per 50 to 100 ms, however many
// wait. Nothing is held during a turn: a winner that dies or stops
// leaves k entries unasked for one round, and the next tick goes on behind them. Neither part starves the other.
//
// relaxed, all of it: D8 asks again, and a hint that comes late comes with the next tick.
#pragma once

#include "recovery.h"

namespace proclock {

// ---- by turns

template <class P>
void Arena<P>::set_wanted(uint32_t process) {
  if (process == 0 || process > kProcessesMax) return;
  Atomic<uint64_t>& bits = header_->wanted[process / 64];
  const uint64_t bit = uint64_t{1} << process % 64;
  if ((bits.load(std::memory_order_relaxed) & bit) == 0) bits.fetch_or(bit, std::memory_order_relaxed);
}

template <class P>
uint32_t Arena<P>::count_wanted(uint32_t most) const {
  uint32_t count = 0;
  for (const Atomic<uint64_t>& bits : header_->wanted) {
    count += static_cast<uint32_t>(__builtin_popcountll(bits.load(std::memory_order_relaxed)));
    if (count >= most) return most;
  }
  return count;
}

template <class P>
uint32_t Arena<P>::take_wanted(uint32_t from, uint32_t most, std::vector<uint32_t>* processes) {
  constexpr uint32_t kWords = sizeof header_->wanted / sizeof header_->wanted[0];
  uint32_t taken = 0;
  for (uint32_t step = 0; step < kWords; step++) {
    const uint32_t n = (from / 64 + step) % kWords;
    Atomic<uint64_t>& bits = header_->wanted[n];
    for (uint64_t left = bits.load(std::memory_order_relaxed); left != 0 && taken < most; left &= left - 1) {
      const uint32_t place = static_cast<uint32_t>(__builtin_ctzll(left));
      bits.fetch_and(~(uint64_t{1} << place), std::memory_order_relaxed);
      processes->push_back(n * 64 + place);
      taken++;
    }
  }
  return taken;
}

// The processes that keep this lock from whoever waits for it, as far as a short walk without the latch finds them.
//
// True: a slot has been RELEASING since the last walk. Its owner may have unlocked (R2), and not have looked whether anybody waits
// (R3): it was stopped in between, or the latch was stalled, and its event loop has been busy since. It would hold up the
// others for as long as that lasts. So whoever waits pokes the front for it; a poke too many costs a wake-up.
template <class P>
bool Arena<P>::want(uint32_t lock_index, uint32_t* from, OwedSeen* owed) {
  const Lock<P>* entry = find(locks_, lock_index);
  if (entry == nullptr) return false;
  const auto want_owner = [&](const Slot<P>& other) {
    const uint64_t word = other.word.load(std::memory_order_relaxed);
    const uint32_t owner = owner_of(word);
    if (get(other.lock) == lock_index && is_involved(word, flags_of(other)) &&
        (owner != self_ || is_left(word)))
      set_wanted(owner);
    return holds(word, Mode::kExclusive);
  };
  const Slot<P>* holder = find(slots_, get(entry->holder));
  if (holder != nullptr && get(holder->lock) == lock_index && want_owner(*holder)) return false;
  bool is_owed = false;
  OwedSeen releasing;
  // On from where the last walk ended, unless that slot serves another lock by now.
  const uint32_t went_to = from == nullptr ? 0 : *from;
  const Slot<P>* last = find(slots_, went_to);
  uint32_t index = last != nullptr && get(last->lock) == lock_index ? went_to : get(entry->slots_head);
  for (uint32_t steps = 0; steps < kWantSlotsMax; steps++) {
    const Slot<P>* other = find(slots_, index);
    if (other == nullptr) break;
    want_owner(*other);
    const uint64_t word = other->word.load(std::memory_order_relaxed);
    if (owed != nullptr && phase_of(word) == Phase::kReleasing && get(other->lock) == lock_index) {
      is_owed = is_owed || (owed->slot == index && owed->word == word);
      if (releasing.slot == 0 || owed->slot == index) releasing = {index, word};
    }
    index = get(other->lock_next);
  }
  if (from != nullptr) *from = index;
  if (releasing.slot != 0) *owed = releasing;
  return is_owed;
}

// Not while a poke is under way: whoever was poked may be one that does not react, and the time since then is counted.
template <class P>
Status Arena<P>::poke_owed(uint32_t lock_index) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  const Lock<P>& entry = lock(lock_index);
  if (get(entry.queue_head) != 0 && !is_poked(entry.gate.load(std::memory_order_relaxed)))
    poke_front(latched, lock_index);
  return latched.status();
}

// Asks. Without the latch, the answer may be about somebody who has gone by then.
template <class P>
bool Arena<P>::is_found_dead(uint32_t process_index) const {
  ProcessIdentity identity;
  uint64_t number;
  if (process_index == self_ || !read_process(process_index, &identity, &number)) return false;
  return memory_.liveness(number) == Liveness::kDead || memory_.liveness(identity) == Liveness::kDead;
}

// Is there something to recover? Needs no latch.
template <class P>
bool Arena<P>::needs_recovery(uint32_t process_index) const {
  const Process<P>* entry = find(processes_, process_index);
  if (entry == nullptr) return false;
  const uint32_t state = entry->state.load(std::memory_order_acquire);
  if (state == static_cast<uint32_t>(ProcessState::kDead) || get(entry->left) != 0) return true;
  return is_found_dead(process_index);
}

// D4
template <class P>
Status Arena<P>::look_at_latch() {
  const uint64_t word = header_->latch.load(std::memory_order_relaxed);
  const uint64_t owner = latch_owner(word);
  const bool broken = owner == 0 ? (word & kLatchDirty) != 0 : owner != memory_.number() && is_dead(owner);
  if (!broken) return Status::kOk;
  Latched latched(*this);
  return latched.status();
}

template <class P>
Status Arena<P>::tick(ScanSeen* seen, uint32_t periods) {
  if (owner_inside() == memory_.number()) {  // D0
    const Latched latched(*this);
  }
  uint64_t scan = header_->scan.load(std::memory_order_relaxed);
  const bool changed = scan != seen->word;
  seen->word = scan;
  if (changed || !memory_.can_ask()) return Status::kOk;  // D2
  const uint32_t in_use = used(processes_);
  const uint32_t turn = std::max<uint32_t>(16, (in_use + 39) / 40) * periods;
  const uint32_t wanted_max = turn - turn / 4;
  const uint32_t from = scan_cursor(scan) < in_use ? scan_cursor(scan) : 0;
  const uint32_t count = std::min(turn - count_wanted(wanted_max), in_use);
  const uint64_t next = next_scan(scan, in_use == 0 ? 0 : (from + count) % in_use);
  if (!header_->scan.compare_exchange_strong(scan, next, std::memory_order_relaxed)) {  // D3
    seen->word = scan;
    return Status::kOk;
  }
  seen->word = next;
  const Status looked = look_at_latch();
  std::vector<uint32_t> asked;
  take_wanted(from, wanted_max, &asked);  // D5
  for (uint32_t n = 0; n < count; n++) asked.push_back((from + n) % in_use + 1);
  each_once(&asked);
  const auto is_fine = [&](uint32_t index) { return !needs_recovery(index); };  // D6
  asked.erase(std::remove_if(asked.begin(), asked.end(), is_fine), asked.end());
  if (asked.empty()) return looked;
  Latched latched(*this);  // D7
  if (ok(latched.status())) {
    check_processes(latched, asked);  // D8, D9
  } else {
    for (const uint32_t index : asked) set_wanted(index);
  }
  return latched.status();
}

template <class P>
Status Arena<P>::recover_if_dead(uint32_t process_index) {
  Latched latched(*this);
  if (ok(latched.status()) && find(processes_, process_index) != nullptr)
    check_processes(latched, {process_index});
  return latched.status();
}

// The process of this number is known to have ended: its pidfd says so, whoever has its token by now.
template <class P>
Status Arena<P>::recover_dead(uint32_t process_index, uint64_t number) {
  Latched latched(*this);
  if (!ok(latched.status()) || process_index == self_) return latched.status();
  ProcessIdentity identity;
  uint64_t named;
  if (read_process(process_index, &identity, &named) && named == number) mark_dead(process_index);
  if (!fault_ && find(processes_, process_index) != nullptr) check_processes(latched, {process_index});
  return latched.status();
}

// ---- for somebody who was refused

// Does the slot hold, wait, or do either at this moment?
template <class P>
bool Arena<P>::is_involved(uint64_t word, uint32_t flags) {
  return refers(word) || (flags & kSlotQueued) != 0;
}

// Asks about the processes that hold, or wait for, this lock; first about its last exclusive holder. Bounded: a lock that
// very many share is looked at from another place each time.
template <class P>
void Arena<P>::look_latched(const Latched& latched, uint32_t lock_index) {
  Lock<P>& entry = lock(lock_index);
  std::vector<uint32_t> suspects;
  const auto suspect = [&](const Slot<P>& other) {
    const uint64_t word = word_of(other);
    const uint32_t owner = owner_of(word);
    if (is_involved(word, flags_of(other)) && (owner != self_ || is_left(word)) &&
        std::find(suspects.begin(), suspects.end(), owner) == suspects.end()) {
      suspects.push_back(owner);
    }
  };
  const Slot<P>* holder = find(slots_, get(entry.holder));
  if (holder != nullptr && get(holder->lock) == lock_index) suspect(*holder);
  // On from the slot at which the last look ended, unless that serves another lock by now.
  const Slot<P>* last = find(slots_, get(entry.look_cursor));
  const bool goes_on = last != nullptr && get(last->lock) == lock_index;
  set(entry.look_cursor, 0);
  uint32_t seen = 0;
  each_slot(goes_on ? last->lock_next : entry.slots_head, kByLock, [&](uint32_t index, Slot<P>& other) {
    suspect(other);
    if (++seen < kLookSlotsMax && suspects.size() < kLookProcessesMax) return true;
    set(entry.look_cursor, index);
    return false;
  });
  check_processes(latched, suspects);
}

// A lock that its last exclusive holder still holds, alive, is refused by nobody else: then that one is all there is to look
// at, however many wait.
template <class P>
Status Arena<P>::look(uint32_t lock_index) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  const Slot<P>* holder = find(slots_, get(lock(lock_index).holder));
  if (holder != nullptr && get(holder->lock) == lock_index) {
    const uint64_t word = word_of(*holder);
    if (holds(word, Mode::kExclusive) && is_live(owner_of(word)) && !is_found_dead(owner_of(word)))
      return latched.status();
  }
  look_latched(latched, lock_index);
  return latched.status();
}

}  // namespace proclock
