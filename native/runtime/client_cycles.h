// Waits that go round in a circle. What that is, and who fails, is in core/deadlock.h.
#pragma once

#include "client_holds.h"

namespace proclock {

// Numbers of contexts are unique in the process, whatever copies of the addon are in it.
template <class P>
uint32_t Client<P>::new_context() {
  static std::atomic<uint32_t> last{0};
  uint32_t context;
  do {
    context = last.fetch_add(1, std::memory_order_relaxed) + 1;
  } while (context == 0);
  return context;
}

template <class P>
bool Client<P>::is_wanted(uint32_t index) {
  const Hold* hold = hold_at(index, State::kHeld);
  return hold != nullptr && hold->lock->space->state() != Status::kClosed &&
         hold->lock->space->arena().is_wanted(hold->ref);
}

template <class P>
void Client<P>::leave_context(uint32_t index) {
  const Hold* hold = hold_at(index, State::kHeld);
  if (hold != nullptr && hold->lock->space->state() != Status::kClosed)
    hold->lock->space->arena().leave_context(hold->ref);
}

// A wait, or a hold that waits to be upgraded.
template <class P>
typename Client<P>::Hold* Client<P>::wanting_at(uint32_t index) {
  Hold* wait = waiting_at(index);
  return wait != nullptr ? wait : upgrading_at(index);
}

template <class P>
void Client<P>::tell(const Hold& wait) {
  const uint32_t told = wait.lock->space->arena().told_of_cycle(wait.ref);
  report_->told = ((told & kSlotVictim) != 0 ? kVictim : 0) | ((told & kSlotWarns) != 0 ? kWarns : 0);
}

// K1, for a wait that blocks the thread: nothing that the thread holds can be given back meanwhile.
template <class P>
bool Client<P>::holds_wanted(const Space<P>& space) const {
  return std::any_of(holds_.begin(), holds_.end(), [&](const Hold& hold) {
    return hold.state == State::kHeld && hold.lock->space.get() == &space &&
           hold.lock->space->arena().is_wanted(hold.ref);
  });
}

// K1, for one that does not block. True: somebody waits for any of it.
template <class P>
bool Client<P>::find_owned(const Space<P>& space, const std::vector<Owned>& owned,
                           std::vector<typename Arena<P>::Owned>* held) {
  bool wanted = false;
  for (const Owned& one : owned) {
    const Hold* hold = hold_at(one.hold, State::kHeld);
    if (hold == nullptr || hold->lock->space.get() != &space) continue;
    held->push_back({one.context, hold->ref});
    wanted = wanted || hold->lock->space->arena().is_wanted(hold->ref);
  }
  return wanted;
}

template <class P>
bool Client<P>::say_contexts(uint32_t index, const std::vector<Owned>& owned) {
  Hold* wait = wanting_at(index);
  if (wait == nullptr || !ok(wait->lock->space->state())) return false;
  std::vector<typename Arena<P>::Owned> held;
  if (!find_owned(*wait->lock->space, owned, &held)) return false;
  const Entered entered(*this);
  return wait->lock->space->arena().say_contexts(wait->ref, held) != Status::kCorrupt;
}

// Where a stopped process keeps us from looking, nobody need try: each one would find the same.
template <class P>
std::vector<uint32_t> Client<P>::waits_in_cycles() {
  std::unordered_map<Space<P>*, std::unordered_map<uint32_t, uint32_t>> waits;  // by slot
  for (uint32_t index = 0; index < holds_.size(); index++) {
    const Hold* wait = wanting_at(index);
    if (wait != nullptr && ok(wait->lock->space->state()))
      waits[wait->lock->space.get()][wait->ref.slot_index] = index;
  }
  report_->told = 0;
  const Entered entered(*this);
  std::vector<uint32_t> found;
  for (const auto& [space, of_slots] : waits) {
    WaitGraph graph;
    const Status status = space->arena().copy_waits(&graph);
    if (status == Status::kStalled) report_->told = kUnknown;
    if (status == Status::kCorrupt) space->arena().condemn();
    if (!ok(status)) continue;
    graph.link();
    for (const uint32_t n : graph.waits_in_cycles(1)) {
      const auto ours = of_slots.find(graph.wait(n).slot);
      if (ours != of_slots.end() && graph.wait(n).process == space->arena().self())
        found.push_back(ours->second);
    }
  }
  return found;
}

template <class P>
bool Client<P>::look_for_cycle(uint32_t index, const std::vector<Owned>& owned) {
  report_->told = 0;
  Hold* wait = wanting_at(index);
  if (wait == nullptr || !ok(wait->lock->space->state())) return false;
  Space<P>& space = *wait->lock->space;
  tell(*wait);
  if (report_->told != 0) return false;
  std::vector<typename Arena<P>::Owned> held;
  bool wanted = false;
  if (wait->state == State::kWaiting) {
    for (const Client* client = first_of_thread_; client != nullptr && !wanted;
         client = client->next_of_thread_)
      wanted = client->holds_wanted(space);
  }
  wanted = find_owned(space, owned, &held) || wanted;
  if (!wanted) {
    wait->cycle = {};
    return false;
  }
  const Entered entered(*this);
  const Status status = space.arena().look_for_cycle(wait->ref, held, &wait->cycle);
  if (status == Status::kCorrupt) space.arena().condemn();
  tell(*wait);
  return status == Status::kStalled || wait->cycle.is_new;
}

template <class P>
Status Client<P>::cycle_of(uint32_t index, std::vector<HolderInfo>* infos,
                           std::unordered_map<uint32_t, LockName>* names) {
  const Hold* wait = wanting_at(index);
  if (wait == nullptr) return Status::kNotHeld;
  if (!ok(wait->lock->space->state())) return wait->lock->space->state();
  const Entered entered(*this);
  return wait->lock->space->arena().cycle_of(wait->ref, infos, names);
}

template <class P>
Status Client<P>::locks_in_cycles(uint32_t id, std::vector<LockName>* names) {
  OpenLock* lock = open_lock_at(id);
  if (lock == nullptr) return Status::kClosed;
  const Status state = lock->space->check_now(P::wall_ms());
  if (!ok(state)) return state;
  const Entered entered(*this);
  Arena<P>& arena = lock->space->arena();
  return patiently(arena, [&] { return arena.locks_in_cycles(names); });
}

}  // namespace proclock
