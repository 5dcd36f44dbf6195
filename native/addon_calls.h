// The calls of the native surface that take one number and return one: all that is done to a hold or an open lock. The first
// are those that are called for each acquire.
#pragma once

#include <napi.h>

#include "runtime/process.h"

#ifdef PROCLOCK_SUPPORTED

#include <memory>

namespace proclock::addon {

using Client = proclock::Client<System>;
using Runtime = proclock::Runtime<System>;

// One per open() in one JavaScript thread. Owns all that was acquired through it, until its binding is garbage-collected or
// the thread ends. What is left of it then is an answer for functions that somebody took out of the binding.
struct Instance {
  std::unique_ptr<Client> client;
  napi_threadsafe_function on_ready = nullptr;
  // What on_ready calls. Weak, so that a copy of the package that nobody uses any more can be collected: but while waits are
  // pending, nobody else may know of those who wait.
  napi_ref callback = nullptr;
  bool kept_alive = false;
  Report* report = nullptr;
  Napi::Reference<Napi::ArrayBuffer> report_buffer;
  OpenFailure failure;
  int ends_left = 2;  // of the thread, and of the binding: runtimes differ in which comes first
};
inline void drop(Instance* instance) {
  if (--instance->ends_left == 0) delete instance;
}

inline int32_t number(Status status) { return static_cast<int32_t>(status); }

// ---- what is called for each acquire

// One unsigned argument in, one signed result out. Wrong arguments are answered with a status, never believed.
template <int32_t (*call)(Client&, uint32_t)>
napi_value plain(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  void* data;
  uint32_t value;
  napi_value result;
  int32_t outcome = number(Status::kClosed);
  if (napi_get_cb_info(env, info, &count, &argument, nullptr, &data) == napi_ok && count == 1 &&
      napi_get_value_uint32(env, argument, &value) == napi_ok) {
    Instance* instance = static_cast<Instance*>(data);
    if (instance->client != nullptr) outcome = call(*instance->client, value);
  }
  napi_create_int32(env, outcome, &result);
  return result;
}

// The same with the argument and the result in the report: such a call costs what an empty one does.
template <int32_t (*call)(Instance&, uint32_t)>
napi_value direct(napi_env env, napi_callback_info info) {
  void* data = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data);
  Instance* instance = static_cast<Instance*>(data);
  if (instance->client == nullptr) return nullptr;
  Report& report = *instance->report;
  const int32_t outcome = call(*instance, static_cast<uint32_t>(report.argument));
  report.result =
      outcome >= 0 && (report.ready | report.abandoned) != 0 ? outcome | Client::kAttention : outcome;
  return nullptr;
}

inline int32_t try_acquire(Instance& instance, uint32_t key) { return instance.client->try_acquire(key); }
inline int32_t release(Instance& instance, uint32_t hold) { return number(instance.client->release(hold)); }
inline int32_t enqueue(Instance& instance, uint32_t key) {
  return instance.client->enqueue(key, static_cast<uint32_t>(instance.report->how));
}
inline int32_t next_ready(Instance& instance, uint32_t) {
  Status tried = Status::kOk;
  const int32_t hold = instance.client->next_ready(&tried);
  instance.report->tried = number(tried);
  return hold;
}

// ---- the others

inline int32_t react(Client& client, uint32_t hold) { return number(client.react(hold)); }
inline int32_t withdraw(Client& client, uint32_t hold) { return number(client.withdraw(hold)); }
inline int32_t try_upgrade(Client& client, uint32_t hold) { return number(client.try_upgrade(hold)); }
inline int32_t upgrade(Client& client, uint32_t hold) { return number(client.upgrade(hold)); }
inline int32_t downgrade(Client& client, uint32_t hold) { return number(client.downgrade(hold)); }
inline int32_t finish_repair(Client& client, uint32_t hold) {
  return number(client.finish(hold, Finished::kRepair));
}
inline int32_t finish_flight(Client& client, uint32_t hold) {
  return number(client.finish(hold, Finished::kFlight));
}
inline int32_t place(Client& client, uint32_t hold) { return client.place(hold); }
inline int32_t last_token(Client& client, uint32_t lock) { return number(client.last_token(lock)); }
inline int32_t flights(Client& client, uint32_t lock) { return client.flights(lock); }
inline int32_t steal(Client& client, uint32_t key) { return client.steal(key); }
inline int32_t listen(Client& client, uint32_t hold) { return number(client.listen(hold)); }
inline int32_t check_hold(Client& client, uint32_t hold) { return number(client.check_hold(hold)); }
inline int32_t check_namespace(Client& client, uint32_t lock) { return number(client.check(lock)); }
inline int32_t look(Client& client, uint32_t lock) { return number(client.look(lock)); }
inline int32_t settle_owed(Client& client, uint32_t) { return static_cast<int32_t>(client.settle_owed()); }
inline int32_t serve(Client& client, uint32_t) { return client.serve() ? 1 : 0; }
inline int32_t held_by_thread(Client& client, uint32_t lock) { return client.held_by_thread(lock) ? 1 : 0; }
inline int32_t new_context(Client& client, uint32_t) { return static_cast<int32_t>(client.new_context()); }
inline int32_t is_wanted(Client& client, uint32_t hold) { return client.is_wanted(hold) ? 1 : 0; }
inline int32_t leave_context(Client& client, uint32_t hold) {
  client.leave_context(hold);
  return 0;
}
inline int32_t close_lock(Client& client, uint32_t lock) { return number(client.close_lock(lock)); }

}  // namespace proclock::addon

#endif  // PROCLOCK_SUPPORTED
