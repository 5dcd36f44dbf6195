// Deadlocks: who waits in a circle, and what becomes of it.
//
// What it guarantees. Of a cycle in which every member blocks its thread exactly one wait fails, within about a second of the
// time that it has lasted that long; no wait fails, and nobody is accused, that is in no cycle. Of any other cycle each
// process that takes part is told once, or one member fails that has asked for that. Whoever waits less than a second, or
// holds nothing that others wait for, pays nothing.
//
// Who waits for whom. A wait waits for *all* that is in its way: each holder whose mode does not go with its own, and each
// wait ahead of it in the queue whose mode does not. One of them that never ends is enough to keep it, so any cycle of such
// edges is a deadlock. A pending upgrade is both, a shared hold and a wait for all other holders, ahead of the queue. A hold leads
// on to the waits without whose end it can not be given back:
//    - that of its thread, if the thread blocks: then nothing that it holds can be given back, however it was taken;
//    - those of the context in which it was taken (a callback, or a guard that was named by `within`), and of the contexts
//      inside of that one. Their code may still give it back by another branch, so that this edge is *likely* only.
// What is held in no context leads nowhere.
//
// A cycle is *certain* if all its members block their threads. Then no member can give anything back, time out, or be granted, but
// for three: a time-out of its own, a theft, a death. Each of these is done behind the latch, and so is the verdict.
//
// How contexts are said. A context is a number, unique in its thread while the process lives. A wait or hold that says one has
// kSlotInContext; `wake` is its context, and for a hold `ticket` is the one around that, 0 if there is none. (`wake` is
// a synchronous waiter's alone, `ticket` that of a place in the queue: the words are free otherwise.) They are not said before
// somebody has waited for a second: nobody who gets his lock earlier writes anything. The owner says them behind the latch,
// of slots of its own, and takes the flag back before it releases. An upgrade has one word for its wait and its hold, and the
// ticket of a place in the queue: so all that its owner holds is said to be held in the context that waits.
//
//    K1  a wait has lasted a second, and something that its owner holds is waited for by others (the gate says QUEUED).
//        Otherwise nothing is done: in every cycle there is an owner that holds what another member wants, because queues
//        alone have no cycle. That one looks, and tells all others
//    K2  behind the latch: say in which contexts the owner waits and holds; copy the holds and waits of all who live; is
//        there a cycle through this wait? A certain one first, the shortest of its kind
//    K3  not the one that K2 found at the last look: remember it, and come again soon. The same, each slot with the same word,
//        ticket and time: it was there all the time, or all of it came again, which needs the tickets to come again
//    K4  ask whether its members live. One that died is recovered, and the cycle was none
//    K5  certain: the youngest fails. Otherwise the youngest of those that have asked for it. Among those that may, one that
//        has a time-out or signal gives way to one that has none. The youngest is the one with the last ticket: tickets
//        are drawn behind the latch, one for each wait of the namespace, so that all see the same order, without ties
//    K6  the victim gets kSlotVictim, and is woken. From now on it is counted as gone: no other look finds a cycle through it.
//        Nobody is to fail: each process with a member is told by one of its members (kSlotWarns), once (kSlotTold)
//    K7  the victim, behind the latch: is there still a cycle, and a certain one unless it has asked to fail for a likely one?
//        If not (a death, a time-out or a theft was faster) it takes the flag back, and waits on. If so it leaves the
//        queue, with an error
//
// Exactly one. K2 to K6 are one entry into the latch, so of two that look the second finds the first one's victim gone. A
// victim that dies or times out before K7 is gone as well, and the cycle with it. One that is stopped fails when it goes on.
// Whoever dies between K2 and K6 is a member, since only members look: its death ends the cycle; a flag that it may have left
// is taken back in K7, which every victim does at its next look, whether it was woken or not.
#pragma once

#include <set>

#include "snapshot.h"
#include "wait_graph.h"

namespace proclock {

// Is somebody queued for the lock of this hold? Needs no latch.
template <class P>
bool Arena<P>::is_wanted(const SlotRef& hold) const {
  return has_waiters(hold.lock->gate.load(std::memory_order_relaxed));
}

// What a wait is told of its cycle: kSlotVictim, kSlotWarns. Needs no latch.
template <class P>
uint32_t Arena<P>::told_of_cycle(const SlotRef& wait) const {
  return flags_of(*wait.slot) & (kSlotVictim | kSlotWarns);
}

// The hold belongs to no context any more. By its owner, before it is released. A read-modify-write, because: others may put
// the slot on a doorbell.
template <class P>
void Arena<P>::leave_context(const SlotRef& hold) {
  if (tag_of(word_of(*hold.slot)) != hold.tag) return;
  hold.slot->flags.fetch_and(~kSlotInContext, std::memory_order_relaxed);
}

// K2. From the inside out: the wait is in the first context. One that has left the queue, or holds no more, says nothing.
template <class P>
void Arena<P>::say_contexts(const Latched&, const SlotRef& wait, const std::vector<Owned>& owned) {
  const uint32_t flags = flags_of(*wait.slot);
  if (owned.empty() || (flags & (kSlotQueued | kSlotAsync)) != (kSlotQueued | kSlotAsync)) return;
  set(wait.slot->wake, owned.front().context);
  wait.slot->flags.fetch_or(kSlotInContext, std::memory_order_relaxed);
  uint32_t outer = 0;
  for (size_t n = owned.size(); n-- > 0;) {
    if (n + 1 < owned.size() && owned[n + 1].context != owned[n].context) outer = owned[n + 1].context;
    Slot<P>& held = *owned[n].hold.slot;
    const uint64_t word = word_of(held);
    if (!is_held_by(word, owned[n].hold.tag) || (flags_of(held) & kSlotQueued) != 0) continue;
    if ((flags & kSlotUpgrading) != 0) {
      set(held.wake, owned.front().context);
      set(held.ticket, 0);
      held.flags.fetch_or(kSlotInContext, std::memory_order_relaxed);
      continue;
    }
    set(held.wake, owned[n].context);
    set(held.ticket, outer);
    held.flags.fetch_or(kSlotInContext, std::memory_order_relaxed);
  }
}

// One pass over the slots, in the order in which they lie in memory.
template <class P>
void Arena<P>::copy_waits(const Latched&, WaitGraph* graph) {
  const uint32_t newest = get(header_->ticket);
  const uint32_t slots = used(slots_);
  for (uint32_t index = 1; index <= slots && !fault_; index++) {
    const Slot<P>& entry = slot(index);
    const uint64_t word = word_of(entry);
    const uint32_t lock_index = get(entry.lock);
    const uint32_t flags = flags_of(entry);
    const bool upgrades = is_upgrading(word, flags);
    const bool pending = is_pending(word, flags);
    if (lock_index == 0 || (!pending && !is_held(word)) || is_gone(word)) continue;
    const uint32_t context = (flags & kSlotInContext) != 0 ? get(entry.wake) : 0;
    const double since_ms = double_of(entry.since.load(std::memory_order_relaxed));
    if (!pending) {
      const uint32_t outer = context != 0 && !upgrades ? get(entry.ticket) : 0;
      graph->add(WaitGraph::Hold{index, lock_index, owner_of(word), get(entry.thread), context, outer,
                                 mode_of(word), since_ms});
    }
    if (!pending && !upgrades) continue;
    const bool blocks = (flags & kSlotAsync) == 0;
    const uint32_t ticket = get(entry.ticket);
    graph->add(WaitGraph::Wait{
        index, lock_index, owner_of(word), get(entry.thread), newest - ticket, blocks ? 0 : context,
        (flags & kSlotExclusive) != 0 ? Mode::kExclusive : Mode::kShared, blocks,
        (flags & kSlotPassedOver) == 0, (flags & kSlotVictim) != 0, upgrades, since_ms, ticket});
  }
}

// For many waits that look at the same time: first all of them say where they are, and then one copy tells which of them are in
// any cycle. Only those look for themselves.
template <class P>
Status Arena<P>::say_contexts(const SlotRef& wait, const std::vector<Owned>& owned) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  say_contexts(latched, wait, owned);
  return latched.status();
}

template <class P>
Status Arena<P>::copy_waits(WaitGraph* graph) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  copy_waits(latched, graph);
  return latched.status();
}

template <class P>
uint64_t Arena<P>::print_of(const WaitGraph& graph, const WaitGraph::Cycle& cycle) {
  uint64_t print = 0xcbf29ce484222325u;
  const auto mix = [&](uint64_t value) {
    print = (print ^ value) * 0x100000001b3u;
    print ^= print >> 29;
  };
  const auto mix_slot = [&](uint32_t index) {
    const Slot<P>& entry = slot(index);
    mix(index);
    mix(word_of(entry));
    mix(get(entry.ticket));
    mix(entry.since.load(std::memory_order_relaxed));
  };
  // A cycle has no first member.
  const auto first = std::min_element(cycle.waits.begin(), cycle.waits.end()) - cycle.waits.begin();
  for (size_t n = 0; n < cycle.waits.size(); n++) {
    mix_slot(graph.wait(cycle.waits[(static_cast<size_t>(first) + n) % cycle.waits.size()]).slot);
  }
  uint64_t of_holds = 0;
  const uint64_t of_waits = print;
  for (const uint32_t hold : cycle.holds) {
    print = of_waits;
    mix_slot(graph.hold(hold).slot);
    of_holds += print;
  }
  return (of_waits ^ of_holds) | 1;  // 0 is none
}

// K4
template <class P>
bool Arena<P>::all_live(const Latched& latched, const WaitGraph& graph, const WaitGraph::Cycle& cycle) {
  Suspects suspects(used(processes_));
  for (const uint32_t wait : cycle.waits) suspects.add(graph.wait(wait).process);
  for (const uint32_t hold : cycle.holds) suspects.add(graph.hold(hold).process);
  check_processes(latched, suspects.all);
  // A slot that was recovered is nobody's.
  const auto lives = [&](uint32_t slot_index, bool pending) {
    const Slot<P>& entry = slot(slot_index);
    const uint64_t word = word_of(entry);
    return !fault_ && get(entry.lock) != 0 && !is_gone(word) &&
           (pending ? waits(word, flags_of(entry)) : is_held(word));
  };
  return std::all_of(cycle.waits.begin(), cycle.waits.end(),
                     [&](uint32_t wait) { return lives(graph.wait(wait).slot, true); }) &&
         std::all_of(cycle.holds.begin(), cycle.holds.end(),
                     [&](uint32_t hold) { return lives(graph.hold(hold).slot, false); });
}

// K5. The index of the wait that fails; none: nobody does.
template <class P>
const WaitGraph::Wait* Arena<P>::victim_of(const WaitGraph& graph, const WaitGraph::Cycle& cycle,
                                           bool certain) {
  const WaitGraph::Wait* victim = nullptr;
  bool victim_ends = false;
  for (const uint32_t n : cycle.waits) {
    const WaitGraph::Wait& wait = graph.wait(n);
    const uint32_t flags = flags_of(slot(wait.slot));
    if (!certain && (flags & kSlotThrows) == 0) continue;
    const bool ends = (flags & kSlotEnds) != 0;
    const bool rather = victim == nullptr || (ends == victim_ends ? wait.age < victim->age : victim_ends);
    if (!rather) continue;
    victim = &wait;
    victim_ends = ends;
  }
  return victim;
}

// K6, where nobody fails. One that does not block its thread can say so at once.
template <class P>
void Arena<P>::tell_processes(const Latched& latched, const WaitGraph& graph, const WaitGraph::Cycle& cycle) {
  std::vector<const WaitGraph::Wait*> speakers;
  bool is_new = false;
  for (const uint32_t n : cycle.waits) {
    const WaitGraph::Wait& wait = graph.wait(n);
    is_new =
        (slot(wait.slot).flags.fetch_or(kSlotTold, std::memory_order_relaxed) & kSlotTold) == 0 || is_new;
    const auto same = std::find_if(speakers.begin(), speakers.end(), [&](const WaitGraph::Wait* speaker) {
      return speaker->process == wait.process;
    });
    if (same == speakers.end()) {
      speakers.push_back(&wait);
    } else if ((*same)->blocks && !wait.blocks) {
      *same = &wait;
    }
  }
  if (!is_new) return;
  for (const WaitGraph::Wait* speaker : speakers) {
    slot(speaker->slot).flags.fetch_or(kSlotWarns, std::memory_order_relaxed);
    tell(latched, speaker->slot);
  }
}

// K2 to K6, for a wait that has lasted a second.
template <class P>
Status Arena<P>::look_for_cycle(const SlotRef& wait, const std::vector<Owned>& owned, CycleSeen* seen) {
  const uint64_t seen_before = seen->print;
  *seen = {};
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  const uint32_t flags = flags_of(*wait.slot);
  if (!waits(word_of(*wait.slot), flags) || (flags & kSlotVictim) != 0) return Status::kOk;
  say_contexts(latched, wait, owned);
  WaitGraph graph;
  copy_waits(latched, &graph);
  if (fault_) return latched.status();
  graph.link();
  WaitGraph::Cycle cycle = graph.cycle_through(wait.slot_index, true);
  const bool certain = !cycle.waits.empty();
  if (!certain) cycle = graph.cycle_through(wait.slot_index, false);
  if (cycle.waits.empty()) return Status::kOk;
  seen->print = print_of(graph, cycle);
  seen->is_new = seen->print != seen_before;
  if (seen->is_new || fault_ || !all_live(latched, graph, cycle)) return latched.status();
  const WaitGraph::Wait* victim = victim_of(graph, cycle, certain);
  if (victim == nullptr) {
    tell_processes(latched, graph, cycle);
  } else {
    slot(victim->slot).flags.fetch_or(kSlotVictim, std::memory_order_relaxed);
    tell(latched, victim->slot);
  }
  return latched.status();
}

// K7, and for whoever is to warn. The cycle through this wait, from it on; empty: it waits on, and is told no more.
template <class P>
Status Arena<P>::cycle_of(const SlotRef& wait, std::vector<HolderInfo>* infos,
                          std::unordered_map<uint32_t, LockName>* names) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  const uint32_t flags = flags_of(*wait.slot);
  wait.slot->flags.fetch_and(~kSlotWarns, std::memory_order_relaxed);
  if (!waits(word_of(*wait.slot), flags)) return latched.status();
  WaitGraph graph;
  copy_waits(latched, &graph);
  if (fault_) return latched.status();
  graph.link();
  WaitGraph::Cycle cycle = graph.cycle_through(wait.slot_index, true);
  const bool only_certain = (flags & kSlotVictim) != 0 && (flags & kSlotThrows) == 0;
  if (cycle.waits.empty() && !only_certain) cycle = graph.cycle_through(wait.slot_index, false);
  if (!cycle.waits.empty() && !all_live(latched, graph, cycle)) cycle.waits.clear();
  if (cycle.waits.empty()) wait.slot->flags.fetch_and(~(kSlotVictim | kSlotTold), std::memory_order_relaxed);
  for (const uint32_t n : cycle.waits) {
    const Slot<P>& member = slot(graph.wait(n).slot);
    infos->push_back(describe(member, word_of(member), flags_of(member), true));
    infos->back().lock = graph.wait(n).lock;
    if (names->count(infos->back().lock) == 0)
      read_name(latched, infos->back().lock, &(*names)[infos->back().lock]);
  }
  return latched.status();
}

// For somebody who looks from outside: the names of the locks that are waited for in cycles. A cycle is made of what is known, as
// above; or, since nobody knows in what context a plain guard is held, of what is likely: whoever of its thread has
// begun to wait for another lock after it was taken, and waits for a second by now. Of those at least two threads, because
// within one it may as well be two tasks that have nothing to do with each other. The latch is taken to copy, and to read the names,
// and not to search: who looks holds up nobody for longer than it takes to copy.
template <class P>
Status Arena<P>::locks_in_cycles(std::vector<LockName>* names) {
  WaitGraph known;
  const Status copied = copy_waits(&known);
  if (!ok(copied)) return copied;
  WaitGraph guessed = known;
  known.link();
  guessed.link(true, P::wall_ms() - kCycleWaitMs);
  std::vector<uint32_t> members = known.waits_in_cycles(1);
  const std::vector<uint32_t> likely = guessed.waits_in_cycles(2);
  members.insert(members.end(), likely.begin(), likely.end());

  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  // As long as one waits, its lock is the one that it was.
  const auto still_waits = [&](const WaitGraph::Wait& wait) {
    const Slot<P>& entry = slot(wait.slot);
    const uint64_t word = word_of(entry);
    return get(entry.lock) == wait.lock && get(entry.ticket) == wait.ticket && !is_gone(word) &&
           waits(word, flags_of(entry));
  };
  std::set<uint32_t> seen;
  for (const uint32_t n : members) {
    const WaitGraph::Wait& wait = known.wait(n);
    if (!still_waits(wait) || !seen.insert(wait.lock).second) continue;
    LockName name;
    if (read_name(latched, wait.lock, &name)) names->push_back(std::move(name));
  }
  return latched.status();
}

}  // namespace proclock
