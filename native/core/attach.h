// How a process enters a namespace, and leaves it.
//
// A process has a number (latch.h), which tells whether it lives, and an entry, which its slots name. The entry is allocated
// behind the latch like everything else, and keeps its process's number.
#pragma once

#include "tables.h"

namespace proclock {

// N1 and N2. relaxed, because: only that it is ours alone counts.
template <class P>
Status Arena<P>::take_number() {
  for (uint32_t tries = 0; tries < kNumberTriesMax; tries++) {
    const uint64_t number = header_->last_number.fetch_add(1, std::memory_order_relaxed) + 1;
    if (number >= kNumbersMax) return Status::kCorrupt;
    if (number != 0 && memory_.claim(number)) return Status::kOk;
  }
  return Status::kCorrupt;
}

// Where the table is full, who is dead in it gives way.
template <class P>
Status Arena<P>::allocate_process(const Latched& latched, uint32_t* index) {
  const Status status = allocate(processes_, index);
  if (ok(status) || status == Status::kCorrupt) return status;
  std::vector<uint32_t> all(used(processes_));
  for (uint32_t n = 0; n < all.size(); n++) all[n] = n + 1;
  check_processes(latched, all);
  return get(processes_.meta->free_head) == 0 ? status : allocate(processes_, index);
}

template <class P>
Status Arena<P>::attach(const ProcessIdentity& self) {
  const Status numbered = take_number();
  if (!ok(numbered)) return numbered;
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  // The dead are found now, not when their entries are wanted: an opener may want what they held.
  std::vector<uint32_t> first(std::min(used(processes_), kLookProcessesMax));
  for (uint32_t n = 0; n < first.size(); n++) first[n] = n + 1;
  check_processes(latched, first);

  uint32_t index;
  const Status status = allocate_process(latched, &index);
  if (!ok(status)) return status;
  Process<P>& entry = process(index);
  if (fault_) return Status::kCorrupt;
  // No number while the rest changes: who reads the entry without the latch reads the number first and last.
  entry.number.store(0, std::memory_order_relaxed);
  P::fence();
  entry.pid.store(self.pid, std::memory_order_relaxed);
  entry.start_time.store(self.start_time, std::memory_order_relaxed);
  entry.pid_ns.store(self.pid_ns, std::memory_order_relaxed);
  entry.time_ns.store(self.time_ns, std::memory_order_relaxed);
  // release: pairs with read_process().
  entry.number.store(memory_.number(), std::memory_order_release);
  for (Atomic<uint32_t>* field :
       {&entry.doorbell, &entry.poked_head, &entry.slots_head, &entry.left, &entry.seldom}) {
    set(*field, 0);
  }
  // release, because: who finds it live, without the latch, has to find all of the above.
  entry.state.store(static_cast<uint32_t>(ProcessState::kLive), std::memory_order_release);
  // release, because: a watcher that reads this (by acquire) has to find the entry live. It will not look again.
  header_->attach_epoch.fetch_add(1, std::memory_order_release);
  self_ = index;
  attached_ = true;
  return latched.status();
}

// All slots of this process were given back. The caller closes the descriptor afterwards, and with it goes the token.
template <class P>
Status Arena<P>::detach() {
  if (!attached_) return Status::kOk;
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  Process<P>& entry = process(self_);
  if (get(entry.slots_head) != 0) return Status::kBusy;  // found dead, later
  entry.state.store(static_cast<uint32_t>(ProcessState::kFree), std::memory_order_release);
  free_entry(processes_, self_);
  attached_ = false;
  return latched.status();
}

// Who an entry is of; false if it is nobody's. Needs no latch, and then the answer is as old as the question.
template <class P>
bool Arena<P>::read_process(uint32_t index, ProcessIdentity* identity, uint64_t* number) const {
  const Process<P>* entry = find(processes_, index);
  if (entry == nullptr) return false;
  // acquire, and a fence before the second look: what lies between is of this number alone, which never comes again.
  *number = entry->number.load(std::memory_order_acquire);
  if (entry->state.load(std::memory_order_acquire) != static_cast<uint32_t>(ProcessState::kLive))
    return false;
  identity->pid = entry->pid.load(std::memory_order_relaxed);
  identity->start_time = entry->start_time.load(std::memory_order_relaxed);
  identity->pid_ns = entry->pid_ns.load(std::memory_order_relaxed);
  identity->time_ns = entry->time_ns.load(std::memory_order_relaxed);
  P::fence();
  return *number != 0 && entry->number.load(std::memory_order_relaxed) == *number;
}

}  // namespace proclock
