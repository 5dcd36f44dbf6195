// What the actors read: each location keeps its last values, and an old one may be read unless a newer one happens before the
// read. sim_machine.h says what orders reads.
#pragma once

#include <deque>
#include <utility>

#include "sim_stage.h"

namespace sim {

class WeakMemory : public Stage {
 public:
  // What the kernel does when it is entered and left.
  void full_fence() {
    if (!weak()) return;
    Actor& self = *running_;
    self.known.join(self.acquirable);
    self.known.join(fences_);
    tick(self);
    fences_ = self.known;
    self.fenced = self.known;
    self.fenced_at = ticks_;
  }

  // `latest` is what the location says now; the answer what the actor reads.
  uint64_t load(const void* address, uint64_t latest, std::memory_order order) {
    Location& location = find(address, latest);
    Actor& self = *running_;
    uint32_t oldest = location.oldest_for(self);
    if (order == std::memory_order_seq_cst) oldest = std::max(oldest, location.oldest_sc(fences_));
    uint32_t chosen = location.last;
    if (oldest != location.last && random.one_in(plan_.stale_one_in)) {
      chosen = oldest + random.below(location.last - oldest);
      stale_reads++;
    }
    location.seen[self.id] = chosen;
    read(self, location.at(chosen), order);
    return location.at(chosen).value;
  }
  void store(const void* address, uint64_t before, uint64_t value, std::memory_order order) {
    Location& location = find(address, before);
    append(location, value, order, nullptr);
  }
  // A read-modify-write reads the latest value there is.
  void modify(const void* address, uint64_t before, uint64_t value, std::memory_order order) {
    Location& location = find(address, before);
    const Value last = location.at(location.last);
    location.seen[running_->id] = location.last;
    read(*running_, last, order);
    append(location, value, order, &last);
  }
  void modify_failed(const void* address, uint64_t latest, std::memory_order order) {
    Location& location = find(address, latest);
    location.seen[running_->id] = location.last;
    read(*running_, location.at(location.last), order);
  }

  // The kernel compares a futex word with what it is now; nothing older is read after that.
  void compared(const void* address, uint64_t latest) {
    if (!weak()) return;
    Location& location = find(address, latest);
    location.seen[running_->id] = location.last;
  }

  // A word that begins to exist, where another one may have been.
  void begin_word(const void* address, uint64_t value) {
    if (!weak()) return;
    Location& location = find(address, value);
    location.first = location.last = 0;
    location.seen.fill(0);
    location.values[0] = Value();
    location.values[0].value = value;
  }

  std::memory_order effective(const Site& site, std::memory_order order, char kind) {
    if (order == std::memory_order_relaxed || running_ == nullptr) return order;
    note_order(site, order, kind);
    if (!weakened(site)) return order;
    switch (order) {
      case std::memory_order_seq_cst:
        return weaken_to_relaxed ? std::memory_order_relaxed : std::memory_order_acq_rel;
      default:
        return std::memory_order_relaxed;
    }
  }

  // ---- rwlocks

  // What is known of one beyond its word: for checks alone.
  struct Lock {
    bool initialised = false;
    Clock by;         // its initialisation
    Clock used;       // every access since
    int writer = -1;  // the actor that has it exclusively; -1: nobody, -2: somebody outside of the run
  };
  Lock& lock_state(const void* rwlock) {
    for (auto& entry : storages_) {
      if (entry.first == rwlock) return entry.second;
    }
    storages_.push_back({rwlock, Lock()});
    return storages_.back().second;
  }
  void use(Lock& lock) {
    if (!lock.initialised) fail("a storage is used that was never initialised");
    if (running_ == nullptr || !plan_.weak) return;
    Actor& self = *running_;
    if (!self.known.covers(lock.by)) fail("a storage is used, and its initialisation may not be visible yet");
    tick(self);
    lock.used.at[self.id] = self.known.at[self.id];
  }
  void renew(Lock& lock) {
    if (running_ != nullptr && plan_.weak) {
      Actor& self = *running_;
      if (!self.known.covers(lock.used))
        fail("a storage is initialised while an access to it may not be over");
      tick(self);
      lock.by = self.known;
    }
    lock.initialised = true;
    lock.writer = -1;
  }

  uint64_t stale_reads = 0;
  Weakening weakening;
  bool weaken_to_relaxed = true;
  std::vector<OrderSite>* order_sites = nullptr;  // collected if not null

 protected:
  ~WeakMemory() = default;

  void begin_memory() {
    fences_ = Clock();
    generation_++;
    locations_used_ = 0;
    storages_.clear();
  }

  static constexpr uint32_t kHistory = 4;
  static constexpr uint32_t kLocationsMax = 1 << 13;

  struct Value {
    uint64_t value = 0;
    Clock released;         // what becomes known to who acquires it
    uint32_t by_clock = 0;  // its place in what its writer did; 0: was there before the run
    uint8_t by = 0;
    bool releases = false;
    bool sc = false;
    uint64_t at = 0;  // tick, if sc
  };
  struct Location {
    uint32_t last = 0;  // running numbers of values; the oldest that is kept
    uint32_t first = 0;
    std::array<uint32_t, kActorsMax> seen = {};
    Value values[kHistory];

    Value& at(uint32_t number) { return values[number % kHistory]; }
    // The oldest value that this actor may read.
    uint32_t oldest_for(const Actor& actor) {
      const uint32_t floor = std::max(first, seen[actor.id]);
      for (uint32_t n = last; n > floor; n--) {
        const Value& value = at(n);
        if (actor.known.at[value.by] >= value.by_clock) return n;
        if (value.sc && value.at <= actor.fenced_at) return n;
      }
      return floor;
    }
    uint32_t oldest_sc(const Clock& fences) {
      for (uint32_t n = last; n > first; n--) {
        const Value& value = at(n);
        if (value.sc || fences.at[value.by] >= value.by_clock) return n;
      }
      return first;
    }
  };

  Location& find(const void* address, uint64_t latest) {
    const uintptr_t key = reinterpret_cast<uintptr_t>(address);
    uint32_t place = static_cast<uint32_t>(key * 0x9e3779b97f4a7c15u >> 40) & (2 * kLocationsMax - 1);
    while (index_[place].generation == generation_) {
      if (index_[place].key == key) return locations_[index_[place].location];
      place = (place + 1) & (2 * kLocationsMax - 1);
    }
    if (locations_used_ == kLocationsMax) fail("too many locations");
    index_[place] = {key, generation_, locations_used_};
    Location& location = locations_[locations_used_++];
    location.first = location.last = 0;
    location.seen.fill(0);
    location.values[0] = Value();
    location.values[0].value = latest;
    return location;
  }
  void tick(Actor& actor) { actor.known.at[actor.id]++; }
  static void read(Actor& self, const Value& value, std::memory_order order) {
    if (!value.releases) return;
    if (order == std::memory_order_relaxed || order == std::memory_order_release) {
      self.acquirable.join(value.released);
    } else {
      self.known.join(value.released);
    }
  }
  void append(Location& location, uint64_t to, std::memory_order order, const Value* before) {
    Actor& self = *running_;
    tick(self);
    location.last++;
    if (location.last - location.first == kHistory) location.first++;
    Value& value = location.at(location.last);
    value.value = to;
    value.by = static_cast<uint8_t>(self.id);
    value.by_clock = self.known.at[self.id];
    value.sc = order == std::memory_order_seq_cst;
    value.at = ticks_;
    value.releases = true;
    value.released =
        order == std::memory_order_relaxed || order == std::memory_order_acquire ? self.fenced : self.known;
    if (before != nullptr && before->releases) value.released.join(before->released);
    location.seen[self.id] = location.last;
  }
  // Everybody slept: whatever was on its way has arrived.
  void settle_memory() {
    if (!plan_.weak) return;
    Clock all;
    for (Actor& actor : actors()) all.join(actor.known);
    for (Actor& actor : actors()) actor.known = all;
  }

  bool weakened(const Site& site) const {
    return weakening.line == site.line && weakening.file != nullptr && strcmp(weakening.file, site.file) == 0;
  }
  void note_order(const Site& site, std::memory_order order, char kind) {
    if (order_sites == nullptr) return;
    for (const OrderSite& known : *order_sites) {
      if (known.site.line == site.line && strcmp(known.site.file, site.file) == 0) return;
    }
    order_sites->push_back({site, order, kind});
  }

  struct Index {
    uintptr_t key;
    uint32_t generation;
    uint32_t location;
  };

  Clock fences_;
  std::deque<std::pair<const void*, Lock>> storages_;  // stay where they are
  uint32_t generation_ = 0;
  uint32_t locations_used_ = 0;
  std::vector<Location> locations_ = std::vector<Location>(kLocationsMax);
  std::vector<Index> index_ = std::vector<Index>(2 * kLocationsMax);
};

}  // namespace sim
