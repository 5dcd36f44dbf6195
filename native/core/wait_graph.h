// Who waits for whom: a copy of the holds and waits of a namespace as a graph, and the cycles in it. Pure: no shared memory, no
// latch. What the edges mean, and what a cycle is good for, is in deadlock.h.
//
// An edge from each wait to each one that is in its way would be the square of a queue. So there are nodes in between, and the
// graph is as long as the list of slots:
//
//    node              leads to
//    wait, exclusive   all that is ahead of it in the queue; all holders of its lock
//    wait, shared      what is exclusive ahead of it in the queue; the exclusive holder of its lock
//    upgrade           all holders of its lock but itself
//    all ahead of k    the wait before k; all ahead of that one
//    exclusive ahead   the same, without the shared ones
//    holders of L      each hold of L; the exclusive ones only, for those that wait shared
//    hold              the waits of its thread, or its context, whose owner can not give it back before they end
//    thread            its wait that blocks
//    context           the waits in it, and in the contexts inside of it
//    span              some of a thread's waits, in the order in which they began: two spans, each half of them (guessed owners)
//
// A wait of which nothing is to be expected (passed over, see queue.h) is in nobody's way.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "words.h"

namespace proclock {

class WaitGraph {
 public:
  struct Wait {
    uint32_t slot, lock, process, thread;
    uint32_t age;      // how many waits of the namespace began since
    uint32_t context;  // of the owner that waits; 0: none is known
    Mode mode;
    bool blocks;  // its thread
    bool is_in_the_way = true;
    bool is_ending = false;  // was chosen to end: no cycle goes through it any more
    bool upgrades = false;   // holds by the same slot, shared, and waits for all other holders
    double since_ms = 0;
    uint32_t ticket = 0;  // of its place in the queue
  };
  struct Hold {
    uint32_t slot, lock, process, thread;
    uint32_t context;  // in which it was taken; 0: none is known
    uint32_t outer;    // the context around that one
    Mode mode;
    double since_ms = 0;
  };
  // A way through the graph: waits and holds by their indices, from a wait back to itself.
  struct Cycle {
    std::vector<uint32_t> waits;  // each once, in the order in which one waits for the next
    std::vector<uint32_t> holds;  // on the way
  };

  void add(const Wait& wait) { waits_.push_back(wait); }
  void add(const Hold& hold) { holds_.push_back(hold); }
  const Wait& wait(uint32_t index) const { return waits_[index]; }
  const Hold& hold(uint32_t index) const { return holds_[index]; }
  size_t waits() const { return waits_.size(); }

  // After all was added. `guess`: where nobody knows in what context something is held, whoever of the thread has begun to wait
  // for another lock since it was taken, and before `begun_ms`, is said to hold it.
  void link(bool guess = false, double begun_ms = 0);

  // The shortest cycle through the wait with this slot; empty: there is none. `certain`: all members block their threads.
  Cycle cycle_through(uint32_t slot, bool certain) const;

  // The waits that are in a cycle of any kind. `threads`: of those in which at least so many take part.
  std::vector<uint32_t> waits_in_cycles(size_t threads) const;

 private:
  static constexpr uint32_t kDepthMax = 64;  // of contexts in one another

  using Key = uint64_t;
  using List = std::vector<uint32_t>;
  struct Queue {
    List waits;  // in queue order
    List holds;
  };

  Key thread_of(uint32_t process, uint32_t thread) const { return Key{process} << 32 | thread; }
  Key context_of(uint32_t process, uint32_t thread, uint32_t context) const {
    const auto found = threads_.find(thread_of(process, thread));
    return Key{found == threads_.end() ? 0 : found->second} << 32 | context;
  }
  List& group_of(std::unordered_map<Key, uint32_t>* groups, Key key) {
    const auto [found, is_new] = groups->try_emplace(key, static_cast<uint32_t>(groups_.size()));
    if (is_new) groups_.emplace_back();
    return groups_[found->second];
  }
  void link_queues();
  void link_contexts();
  void link_owners();
  void guess_owners(double begun_ms);
  void guess_in_thread(const List& waits, const std::unordered_map<uint32_t, List>& holds);

  // Nodes by number: waits, all ahead, exclusive ahead, holders and exclusive holders of a lock, holds, groups of waits.
  uint32_t count() const { return static_cast<uint32_t>(waits_.size()); }
  uint32_t all_ahead(uint32_t wait) const { return count() + wait; }
  uint32_t exclusive_ahead(uint32_t wait) const { return 2 * count() + wait; }
  uint32_t holders(uint32_t queue, Mode wanted) const {
    return 3 * count() + 2 * queue + (wanted == Mode::kExclusive ? 0 : 1);
  }
  uint32_t first_hold() const { return 3 * count() + 2 * static_cast<uint32_t>(queues_.size()); }
  uint32_t first_group() const { return first_hold() + static_cast<uint32_t>(holds_.size()); }
  uint32_t nodes() const { return first_group() + static_cast<uint32_t>(groups_.size()); }

  template <class Visit>
  void each_next(uint32_t node, Visit visit) const;
  template <class Visit>
  void each_next_of_wait(uint32_t wait, Visit visit) const;

  std::vector<Wait> waits_;
  std::vector<Hold> holds_;
  std::vector<Queue> queues_;
  std::unordered_map<uint32_t, uint32_t> queue_of_lock_;
  std::unordered_map<Key, uint32_t> threads_;
  std::unordered_map<Key, uint32_t> blocked_;  // by thread: the group of its wait that blocks
  std::unordered_map<Key, uint32_t>
      in_context_;            // by context: that of the waits in it, and in those that are in it
  List ahead_;                // of each wait: the one before it in the queue; none: itself
  List queue_of_;             // of each wait
  std::vector<List> owners_;  // of each hold: nodes
  std::vector<List> groups_;  // of threads, contexts, spans: nodes
};

inline void WaitGraph::link(bool guess, double begun_ms) {
  link_queues();
  link_contexts();
  link_owners();
  if (guess) guess_owners(begun_ms);
}

inline void WaitGraph::link_queues() {
  const auto queue_of = [&](uint32_t lock) {
    const auto [found, is_new] = queue_of_lock_.try_emplace(lock, static_cast<uint32_t>(queues_.size()));
    if (is_new) queues_.emplace_back();
    return found->second;
  };
  queue_of_.resize(count());
  ahead_.resize(count());
  for (uint32_t n = 0; n < count(); n++) {
    queue_of_[n] = queue_of(waits_[n].lock);
    queues_[queue_of_[n]].waits.push_back(n);
  }
  for (Queue& queue : queues_) {
    std::sort(queue.waits.begin(), queue.waits.end(),
              [&](uint32_t a, uint32_t b) { return waits_[a].age > waits_[b].age; });
    for (size_t n = 0; n < queue.waits.size(); n++) ahead_[queue.waits[n]] = queue.waits[n == 0 ? 0 : n - 1];
  }
  for (uint32_t n = 0; n < holds_.size(); n++) {
    const auto found = queue_of_lock_.find(holds_[n].lock);
    if (found != queue_of_lock_.end()) queues_[found->second].holds.push_back(n);
  }
}

// A wait in a context is one in each of those around that: the way out leads over the holds that say what is around them.
inline void WaitGraph::link_contexts() {
  for (const Wait& wait : waits_)
    threads_.try_emplace(thread_of(wait.process, wait.thread), threads_.size() + 1);
  std::unordered_map<Key, uint32_t> outer;
  for (const Hold& hold : holds_) {
    if (hold.context != 0) outer[context_of(hold.process, hold.thread, hold.context)] = hold.outer;
  }
  for (uint32_t n = 0; n < count(); n++) {
    const Wait& wait = waits_[n];
    if (wait.blocks) {
      group_of(&blocked_, thread_of(wait.process, wait.thread)).push_back(n);
      continue;
    }
    uint32_t context = wait.context;
    for (uint32_t depth = 0; context != 0 && depth < kDepthMax; depth++) {
      const Key key = context_of(wait.process, wait.thread, context);
      group_of(&in_context_, key).push_back(n);
      const auto around = outer.find(key);
      context = around == outer.end() ? 0 : around->second;
    }
  }
}

inline void WaitGraph::link_owners() {
  owners_.resize(holds_.size());
  for (uint32_t n = 0; n < holds_.size(); n++) {
    const Hold& hold = holds_[n];
    const auto blocked = blocked_.find(thread_of(hold.process, hold.thread));
    if (blocked != blocked_.end()) owners_[n].push_back(first_group() + blocked->second);
    if (hold.context == 0) continue;
    const auto inside = in_context_.find(context_of(hold.process, hold.thread, hold.context));
    if (inside != in_context_.end()) owners_[n].push_back(first_group() + inside->second);
  }
}

inline void WaitGraph::guess_owners(double begun_ms) {
  struct Thread {
    List waits;  // that have lasted long enough, in the order in which they began
    std::unordered_map<uint32_t, List>
        holds;  // by lock, those of which nobody is known to be the owner, the latest first
  };
  std::unordered_map<Key, Thread> threads;
  for (uint32_t n = 0; n < count(); n++) {
    if (waits_[n].since_ms <= begun_ms)
      threads[thread_of(waits_[n].process, waits_[n].thread)].waits.push_back(n);
  }
  for (const Queue& queue : queues_) {
    for (const uint32_t n : queue.holds) {
      const auto found = threads.find(thread_of(holds_[n].process, holds_[n].thread));
      if (owners_[n].empty() && found != threads.end()) found->second.holds[holds_[n].lock].push_back(n);
    }
  }
  for (auto& [key, thread] : threads) {
    std::sort(thread.waits.begin(), thread.waits.end(),
              [&](uint32_t a, uint32_t b) { return waits_[a].since_ms < waits_[b].since_ms; });
    for (auto& [lock, holds] : thread.holds) {
      std::sort(holds.begin(), holds.end(),
                [&](uint32_t a, uint32_t b) { return holds_[a].since_ms > holds_[b].since_ms; });
    }
    if (!thread.holds.empty()) guess_in_thread(thread.waits, thread.holds);
  }
}

// Each hold leads to the waits of the thread that began after it, but for those for the same lock. Holds of one lock share what
// they lead to: each one to what is its own, and to the one that was taken after it. A row of waits is led to by spans, which are
// the nodes of a binary tree over the thread's waits. So all holds of a thread have as many edges as it has holds and waits,
// times the depth of that tree.
inline void WaitGraph::guess_in_thread(const List& waits, const std::unordered_map<uint32_t, List>& holds) {
  const uint32_t leaves = static_cast<uint32_t>(waits.size());
  const uint32_t base = first_group() + static_cast<uint32_t>(groups_.size());
  const auto node_of = [&](uint32_t place) { return place < leaves ? base + place : waits[place - leaves]; };
  groups_.resize(groups_.size() + leaves);
  for (uint32_t place = 1; place < leaves; place++) {
    groups_[base - first_group() + place] = {node_of(2 * place), node_of(2 * place + 1)};
  }
  std::unordered_map<uint32_t, List> places;  // of the waits for each lock that is held
  for (uint32_t place = 0; place < leaves; place++) {
    const uint32_t lock = waits_[waits[place]].lock;
    if (holds.count(lock) != 0) places[lock].push_back(place);
  }
  for (const auto& [lock, latest_first] : holds) {
    List& own = places[lock];
    uint32_t end = leaves;  // of the row that nobody leads to yet
    uint32_t later = 0;     // the hold before; no hold is node 0
    for (const uint32_t n : latest_first) {
      if (later != 0) owners_[n].push_back(later);
      later = first_hold() + n;
      const auto lead_to = [&](uint32_t from, uint32_t to) {
        for (from += leaves, to += leaves; from < to; from /= 2, to /= 2) {
          if (from % 2 != 0) owners_[n].push_back(node_of(from++));
          if (to % 2 != 0) owners_[n].push_back(node_of(--to));
        }
      };
      const uint32_t begin = static_cast<uint32_t>(
          std::lower_bound(waits.begin(), waits.end(), holds_[n].since_ms,
                           [&](uint32_t wait, double since_ms) { return waits_[wait].since_ms < since_ms; }) -
          waits.begin());
      for (; !own.empty() && own.back() >= begin; own.pop_back()) {
        lead_to(own.back() + 1, end);
        end = own.back();
      }
      lead_to(begin, end);
      end = begin;
    }
  }
}

template <class Visit>
void WaitGraph::each_next_of_wait(uint32_t n, Visit visit) const {
  const bool exclusive = waits_[n].mode == Mode::kExclusive;
  if (waits_[n].upgrades) {
    for (const uint32_t hold : queues_[queue_of_[n]].holds) {
      if (holds_[hold].slot != waits_[n].slot) visit(first_hold() + hold);
    }
  } else {
    visit(holders(queue_of_[n], waits_[n].mode));
  }
  if (ahead_[n] != n) visit(exclusive ? all_ahead(n) : exclusive_ahead(n));
}

template <class Visit>
void WaitGraph::each_next(uint32_t node, Visit visit) const {
  if (node < count()) return each_next_of_wait(node, visit);
  if (node < 3 * count()) {
    const bool shared_too = node < 2 * count();
    const uint32_t before = ahead_[node - (shared_too ? 1 : 2) * count()];
    if (waits_[before].is_in_the_way && (shared_too || waits_[before].mode == Mode::kExclusive))
      visit(before);
    if (ahead_[before] != before) visit(shared_too ? all_ahead(before) : exclusive_ahead(before));
    return;
  }
  if (node < first_hold()) {
    const bool exclusive_only = (node - 3 * count()) % 2 != 0;
    for (const uint32_t n : queues_[(node - 3 * count()) / 2].holds) {
      if (!exclusive_only || holds_[n].mode == Mode::kExclusive) visit(first_hold() + n);
    }
    return;
  }
  const List& nodes = node < first_group() ? owners_[node - first_hold()] : groups_[node - first_group()];
  for (const uint32_t next : nodes) visit(next);
}

inline WaitGraph::Cycle WaitGraph::cycle_through(uint32_t slot, bool certain) const {
  Cycle cycle;
  const auto found =
      std::find_if(waits_.begin(), waits_.end(), [&](const Wait& wait) { return wait.slot == slot; });
  if (found == waits_.end() || (certain && !found->blocks)) return cycle;
  const uint32_t start = static_cast<uint32_t>(found - waits_.begin());
  const uint32_t none = nodes();
  List reached_from(nodes(), none);
  List reached = {start};
  bool closed = false;
  for (size_t n = 0; n < reached.size() && !closed; n++) {
    const uint32_t node = reached[n];
    each_next(node, [&](uint32_t next) {
      if (closed || reached_from[next] != none) return;
      if (next != start && next < count() && (waits_[next].is_ending || (certain && !waits_[next].blocks)))
        return;
      reached_from[next] = node;
      reached.push_back(next);
      closed = next == start;
    });
  }
  if (!closed) return cycle;
  uint32_t node = start;
  do {
    node = reached_from[node];
    if (node < count()) cycle.waits.push_back(node);
    if (node >= first_hold() && node < first_group()) cycle.holds.push_back(node - first_hold());
  } while (node != start);
  std::reverse(cycle.waits.begin(), cycle.waits.end());
  std::reverse(cycle.holds.begin(), cycle.holds.end());
  return cycle;
}

// Tarjan's strongly connected components, without recursion.
inline std::vector<uint32_t> WaitGraph::waits_in_cycles(size_t threads_min) const {
  List found;
  struct Frame {
    uint32_t node;
    List next;
  };
  List order(nodes(), 0), low(nodes(), 0), open;
  std::vector<bool> is_open(nodes(), false);
  uint32_t visited = 0;
  const auto close = [&](uint32_t root) {
    List members;
    std::vector<Key> threads;
    uint32_t node;
    do {
      node = open.back();
      open.pop_back();
      is_open[node] = false;
      if (node >= count()) continue;
      members.push_back(node);
      threads.push_back(thread_of(waits_[node].process, waits_[node].thread));
    } while (node != root);
    std::sort(threads.begin(), threads.end());
    threads.erase(std::unique(threads.begin(), threads.end()), threads.end());
    if (members.size() < 2 || threads.size() < threads_min) return;
    found.insert(found.end(), members.begin(), members.end());
  };
  for (uint32_t from = 0; from < count(); from++) {
    if (order[from] != 0) continue;
    std::vector<Frame> frames;
    const auto enter = [&](uint32_t node) {
      order[node] = low[node] = ++visited;
      open.push_back(node);
      is_open[node] = true;
      frames.push_back({node, {}});
      each_next(node, [&](uint32_t next) { frames.back().next.push_back(next); });
    };
    for (enter(from); !frames.empty();) {
      const uint32_t node = frames.back().node;
      if (frames.back().next.empty()) {
        if (low[node] == order[node]) close(node);
        frames.pop_back();
        if (!frames.empty()) low[frames.back().node] = std::min(low[frames.back().node], low[node]);
        continue;
      }
      const uint32_t next = frames.back().next.back();
      frames.back().next.pop_back();
      if (order[next] == 0) {
        enter(next);
      } else if (is_open[next]) {
        low[node] = std::min(low[node], order[next]);
      }
    }
  }
  return found;
}

}  // namespace proclock
