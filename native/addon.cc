// The Node-API surface: arguments in, statuses and numbers out. No decision is made here, and no word said: lib/shm/binding.ts
// states what each function takes and returns, lib/shm/errors.ts makes errors of statuses.
//
// The calls that are made for each acquire are plain napi_callbacks with the instance as their data (an empty one costs 13 ns,
// one through node-addon-api's wrappers 30); everything else uses node-addon-api.
#include <napi.h>

#include "addon_command.h"
#include "addon_queries.h"

#ifdef PROCLOCK_SUPPORTED

#include <string>

namespace {

using namespace proclock::addon;
using proclock::Opening;
using proclock::Report;
using proclock::Status;

// openLock(segment, group, make, name): id or status
Napi::Value open_lock(const Napi::CallbackInfo& info) {
  Instance& instance = instance_of(info);
  if (!check(info, info.Length() == 4 && info[0].IsString() && info[1].IsNumber() && info[2].IsBoolean() &&
                       info[3].IsString())) {
    return info.Env().Undefined();
  }
  const std::string segment = info[0].As<Napi::String>().Utf8Value();
  const std::u16string text = info[3].As<Napi::String>().Utf16Value();
  std::string latin1;
  proclock::Name name;
  for (const char16_t unit : text) name.utf16 = name.utf16 || unit > 0xff;
  if (text.size() > proclock::kNameBytesMax) return Napi::Number::New(info.Env(), number(Status::kCapacity));
  name.size = static_cast<uint32_t>(name.utf16 ? text.size() * sizeof(char16_t) : text.size());
  name.bytes = text.data();
  if (!name.utf16) {
    latin1.assign(text.begin(), text.end());
    name.bytes = latin1.data();
  }
  const Opening opening = info[2].As<Napi::Boolean>().Value() ? Opening::kMake : Opening::kFind;
  uint32_t id = 0;
  instance.failure = {};
  const Status status = instance.client->open_lock(segment, info[1].As<Napi::Number>().Int64Value(), name,
                                                   &id, &instance.failure, opening);
  return Napi::Number::New(info.Env(), ok(status) ? static_cast<int32_t>(id) : number(status));
}

// failure(): [errno, version found, ABI found] of the last openLock that failed
Napi::Value failure(const Napi::CallbackInfo& info) {
  const proclock::OpenFailure& failure = instance_of(info).failure;
  Napi::Array result = Napi::Array::New(info.Env(), 3);
  result.Set(0u, Napi::Number::New(info.Env(), failure.error));
  result.Set(1u, Napi::Number::New(info.Env(), failure.found_version));
  result.Set(2u, Napi::Number::New(info.Env(), failure.found_abi));
  return result;
}

// wait(hold, timeoutMs): status
Napi::Value wait(const Napi::CallbackInfo& info) {
  if (!check(info, info.Length() == 2 && info[0].IsNumber() && info[1].IsNumber()))
    return info.Env().Undefined();
  const double timeout_ms = info[1].As<Napi::Number>().DoubleValue();
  return Napi::Number::New(info.Env(),
                           number(instance_of(info).client->wait(info[0].As<Napi::Number>().Uint32Value(),
                                                                 timeout_ms > 0 ? timeout_ms : 0)));
}

// keepAlive(on): whether pending waits keep the event loop running
Napi::Value keep_alive(const Napi::CallbackInfo& info) {
  if (!check(info, info.Length() == 1 && info[0].IsBoolean())) return info.Env().Undefined();
  Instance& instance = instance_of(info);
  const bool on = info[0].As<Napi::Boolean>().Value();
  if (on == instance.kept_alive) return info.Env().Undefined();
  instance.kept_alive = on;
  if (on) {
    napi_reference_ref(info.Env(), instance.callback, nullptr);
    napi_ref_threadsafe_function(info.Env(), instance.on_ready);
  } else {
    napi_reference_unref(info.Env(), instance.callback, nullptr);
    napi_unref_threadsafe_function(info.Env(), instance.on_ready);
  }
  return info.Env().Undefined();
}

// abandoned(hold): [pid, threadId, since in ms, token] or undefined
Napi::Value abandoned(const Napi::CallbackInfo& info) {
  if (!check(info, info.Length() == 1 && info[0].IsNumber())) return info.Env().Undefined();
  proclock::AbandonedInfo found;
  if (!ok(instance_of(info).client->abandoned(info[0].As<Napi::Number>().Uint32Value(), &found))) {
    return info.Env().Undefined();
  }
  return mark_to_array(info.Env(), found);
}

// groupId(name): gid; -1 where there is no such group; another errno below 0 where that can not be found out
Napi::Value group_id(const Napi::CallbackInfo& info) {
  if (!check(info, info.Length() == 1 && info[0].IsString())) return info.Env().Undefined();
  const int64_t id = proclock::System::group_id(info[0].As<Napi::String>().Utf8Value().c_str());
  return Napi::Number::New(info.Env(), static_cast<double>(id));
}

// segmentFile(segment): string, where it is
Napi::Value segment_file(const Napi::CallbackInfo& info) {
  if (info.Length() != 1 || !info[0].IsString()) return info.Env().Undefined();
  const std::string segment = info[0].As<Napi::String>().Utf8Value();
  return Napi::String::New(info.Env(), proclock::System::File::path(segment.c_str()));
}

// segmentInUse(prefix, suffix): string, empty if there is none
Napi::Value segment_in_use(const Napi::CallbackInfo& info) {
  if (!check(info, info.Length() == 2 && info[0].IsString() && info[1].IsString())) {
    return info.Env().Undefined();
  }
  const auto text = [&](size_t index) { return info[index].As<Napi::String>().Utf8Value(); };
  return Napi::String::New(info.Env(), Runtime::get().segment_in_use(text(0), text(1)));
}

void set_plain(Napi::Object exports, Instance* instance, const char* name, napi_callback callback) {
  napi_value function;
  napi_create_function(exports.Env(), name, NAPI_AUTO_LENGTH, callback, instance, &function);
  exports.Set(name, function);
}

// Calls the function that was given to open(), if it is still there. Without an environment the thread is ending.
void call_back(napi_env env, napi_value, void* context, void*) {
  if (env == nullptr) return;
  napi_value callback = nullptr;
  napi_value undefined;
  napi_get_reference_value(env, static_cast<Instance*>(context)->callback, &callback);
  if (callback == nullptr) return;
  napi_get_undefined(env, &undefined);
  napi_call_function(env, undefined, callback, 0, nullptr, nullptr);
}

// The thread ends. Its thread-safe function is torn down after this by a hook of its own.
void end_with_thread(void* data) {
  Instance* instance = static_cast<Instance*>(data);
  instance->client.reset();
  instance->on_ready = nullptr;
  drop(instance);
}

// The binding was garbage-collected. Everything that was acquired through it is given back.
void end_with_binding(napi_env env, void* data, void*) {
  Instance* instance = static_cast<Instance*>(data);
  if (instance->client != nullptr) {
    instance->client.reset();  // before the function that it calls
    napi_release_threadsafe_function(instance->on_ready, napi_tsfn_abort);
    napi_delete_reference(env, instance->callback);
    instance->report_buffer.Reset();
  }
  drop(instance);
}

// What an AsyncLocalStorage has put there when it was made. A thread-safe function lives as long as its thread, and would keep
// whatever the program had stored where it happened to use its first lock. (Node 24 keeps that elsewhere, out of reach.)
void forget_stores(napi_env env, napi_value resource) {
  napi_value symbols;
  uint32_t count = 0;
  if (napi_get_all_property_names(env, resource, napi_key_own_only, napi_key_skip_strings,
                                  napi_key_keep_numbers, &symbols) != napi_ok) {
    return;
  }
  napi_get_array_length(env, symbols, &count);
  for (uint32_t i = 0; i < count; i++) {
    napi_value symbol;
    if (napi_get_element(env, symbols, i, &symbol) == napi_ok)
      napi_delete_property(env, resource, symbol, nullptr);
  }
}

// open(threadId, onReady): a binding with functions of its own. There can be several in one thread (test runners load a
// module anew for each file), and each is told of its own waits.
Napi::Value open(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() != 2 || !info[0].IsNumber() || !info[1].IsFunction()) {
    Napi::TypeError::New(env, "proclock: open() takes a thread id and a function")
        .ThrowAsJavaScriptException();
    return env.Undefined();
  }
  Instance* instance = new Instance();
  Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, sizeof(Report));
  instance->report_buffer = Napi::Persistent(buffer);
  instance->report_buffer.SuppressDestruct();
  napi_create_reference(env, info[1], 0, &instance->callback);
  Napi::Object resource = Napi::Object::New(env);
  napi_create_threadsafe_function(env, nullptr, resource, Napi::String::New(env, "proclock"), 0, 1, nullptr,
                                  nullptr, instance, call_back, &instance->on_ready);
  forget_stores(env, resource);
  napi_unref_threadsafe_function(env, instance->on_ready);
  // The client knows the function, not the environment: it is called from other threads, until its destructor has run.
  const auto notify = [](void* data) {
    napi_call_threadsafe_function(static_cast<napi_threadsafe_function>(data), nullptr,
                                  napi_tsfn_nonblocking);
  };
  instance->report = static_cast<Report*>(buffer.Data());
  instance->client = std::make_unique<Client>(Runtime::get(), info[0].As<Napi::Number>().Uint32Value(),
                                              instance->report, notify, instance->on_ready);
  // Hooks run in reverse: registered after the thread-safe function's own, this one ends all use of it before that is
  // torn down. Everything that the thread holds is given back here, on the thread itself.
  napi_add_env_cleanup_hook(env, end_with_thread, instance);

  Napi::Object binding = Napi::Object::New(env);
  napi_add_finalizer(env, binding, instance, end_with_binding, nullptr, nullptr);
  binding.Set("report", buffer);
  binding.Set("onReady", info[1]);  // for as long as the binding is there
  set_plain(binding, instance, "tryAcquire", direct<try_acquire>);
  set_plain(binding, instance, "release", direct<release>);
  set_plain(binding, instance, "enqueue", direct<enqueue>);
  set_plain(binding, instance, "nextReady", direct<next_ready>);
  set_plain(binding, instance, "react", plain<react>);
  set_plain(binding, instance, "withdraw", plain<withdraw>);
  set_plain(binding, instance, "tryUpgrade", plain<try_upgrade>);
  set_plain(binding, instance, "upgrade", plain<upgrade>);
  set_plain(binding, instance, "downgrade", plain<downgrade>);
  set_plain(binding, instance, "finishRepair", plain<finish_repair>);
  set_plain(binding, instance, "finishFlight", plain<finish_flight>);
  set_plain(binding, instance, "lastToken", plain<last_token>);
  set_plain(binding, instance, "flights", plain<flights>);
  set_plain(binding, instance, "place", plain<place>);
  set_plain(binding, instance, "steal", plain<steal>);
  set_plain(binding, instance, "listen", plain<listen>);
  set_plain(binding, instance, "checkHold", plain<check_hold>);
  set_plain(binding, instance, "check", plain<check_namespace>);
  set_plain(binding, instance, "look", plain<look>);
  set_plain(binding, instance, "settleOwed", plain<settle_owed>);
  set_plain(binding, instance, "serve", plain<serve>);
  set_plain(binding, instance, "heldByThread", plain<held_by_thread>);
  set_plain(binding, instance, "closeLock", plain<close_lock>);
  set_plain(binding, instance, "newContext", plain<new_context>);
  set_plain(binding, instance, "isWanted", plain<is_wanted>);
  set_plain(binding, instance, "leaveContext", plain<leave_context>);
  binding.Set("openLock", Napi::Function::New(env, open_lock, "openLock", instance));
  binding.Set("failure", Napi::Function::New(env, failure, "failure", instance));
  binding.Set("wait", Napi::Function::New(env, wait, "wait", instance));
  binding.Set("keepAlive", Napi::Function::New(env, keep_alive, "keepAlive", instance));
  binding.Set("abandoned", Napi::Function::New(env, abandoned, "abandoned", instance));
  binding.Set("query", Napi::Function::New(env, query, "query", instance));
  binding.Set("queryAll", Napi::Function::New(env, query_all, "queryAll", instance));
  binding.Set("lookForCycle",
              Napi::Function::New(env, with_owned<&Client::look_for_cycle>, "lookForCycle", instance));
  binding.Set("sayContexts",
              Napi::Function::New(env, with_owned<&Client::say_contexts>, "sayContexts", instance));
  binding.Set("waitsInCycles", Napi::Function::New(env, waits_in_cycles, "waitsInCycles", instance));
  binding.Set("cycleOf", Napi::Function::New(env, cycle_of, "cycleOf", instance));
  binding.Set("locksInCycles", Napi::Function::New(env, locks_in_cycles, "locksInCycles", instance));
  binding.Set("marks", Napi::Function::New(env, marks, "marks", instance));
  binding.Set("segmentInUse", Napi::Function::New(env, segment_in_use, "segmentInUse", instance));
  binding.Set("groupId", Napi::Function::New(env, group_id, "groupId", instance));
  return binding;
}

Napi::Object load(Napi::Env env, Napi::Object exports) {
  exports.Set("open", Napi::Function::New(env, open, "open"));
  exports.Set("segmentFile", Napi::Function::New(env, segment_file, "segmentFile"));
  proclock::System::stay_loaded();
  exports.Set("layoutVersion", Napi::Number::New(env, proclock::kLayoutVersion));
  exports.Set("abi", Napi::Number::New(env, proclock::abi_fingerprint()));
  exports.Set("supported", Napi::Boolean::New(env, true));
  set_command_calls(exports);
  return exports;
}

}  // namespace

#else

namespace {
// Loads, and says that it can do nothing: lib/shm/binding.ts throws ERR_LOCK_UNSUPPORTED on the first use.
Napi::Object load(Napi::Env env, Napi::Object exports) {
  exports.Set("supported", Napi::Boolean::New(env, false));
  return exports;
}
}  // namespace

#endif  // PROCLOCK_SUPPORTED

NODE_API_MODULE(proclock, load)
