// The calls of the native surface that show holds and waits: queries, and deadlocks.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "addon_calls.h"

#ifdef PROCLOCK_SUPPORTED

namespace proclock::addon {

inline Instance& instance_of(const Napi::CallbackInfo& info) { return *static_cast<Instance*>(info.Data()); }

inline bool check(const Napi::CallbackInfo& info, bool right) {
  if (right && instance_of(info).client != nullptr) return true;
  Napi::TypeError::New(info.Env(), "proclock: wrong arguments for the native binding")
      .ThrowAsJavaScriptException();
  return false;
}

inline Napi::Array infos_to_array(Napi::Env env, const std::vector<HolderInfo>& infos) {
  Napi::Array result = Napi::Array::New(env, infos.size());
  for (uint32_t i = 0; i < infos.size(); i++) {
    const HolderInfo& info = infos[i];
    Napi::Object line = Napi::Object::New(env);
    line.Set("pending", Napi::Boolean::New(env, info.pending));
    line.Set("exclusive", Napi::Boolean::New(env, info.mode == Mode::kExclusive));
    line.Set("pid", Napi::Number::New(env, info.identity.pid));
    line.Set("startTime", Napi::Number::New(env, static_cast<double>(info.identity.start_time)));
    line.Set("pidNamespace", Napi::Number::New(env, static_cast<double>(info.identity.pid_ns)));
    line.Set("threadId", Napi::Number::New(env, info.thread));
    line.Set("since", Napi::Number::New(env, info.since_ms));
    result.Set(i, line);
  }
  return result;
}

// query(id, whole): Line[] or status
inline Napi::Value query(const Napi::CallbackInfo& info) {
  if (!check(info, info.Length() == 2 && info[0].IsNumber() && info[1].IsBoolean()))
    return info.Env().Undefined();
  std::vector<HolderInfo> infos;
  const Status status = instance_of(info).client->query(info[0].As<Napi::Number>().Uint32Value(),
                                                        info[1].As<Napi::Boolean>().Value(), &infos);
  if (!ok(status)) return Napi::Number::New(info.Env(), number(status));
  return infos_to_array(info.Env(), infos);
}

inline Napi::Value name_to_string(Napi::Env env, const LockName& name) {
  if (name.utf16) {
    const std::u16string text(reinterpret_cast<const char16_t*>(name.bytes.data()),
                              name.bytes.size() / sizeof(char16_t));
    return Napi::String::New(env, text);
  }
  napi_value text;
  napi_create_string_latin1(env, name.bytes.data(), name.bytes.size(), &text);
  return Napi::Value(env, text);
}

// Lines with a name each. `names`: by lock.
inline Napi::Array named_infos_to_array(Napi::Env env, const std::vector<HolderInfo>& infos,
                                        const std::unordered_map<uint32_t, LockName>& names) {
  Napi::Array result = infos_to_array(env, infos);
  for (uint32_t i = 0; i < infos.size(); i++) {
    const auto name = names.find(infos[i].lock);
    if (name != names.end()) result.Get(i).As<Napi::Object>().Set("name", name_to_string(env, name->second));
  }
  return result;
}

inline Napi::Array mark_to_array(Napi::Env env, const AbandonedInfo& mark) {
  Napi::Array result = Napi::Array::New(env, 4);
  result.Set(0u, Napi::Number::New(env, mark.pid));
  result.Set(1u, Napi::Number::New(env, mark.thread));
  result.Set(2u, Napi::Number::New(env, mark.since_ms));
  result.Set(3u, Napi::BigInt::New(env, mark.token));
  return result;
}

// marks(id): the locks of its namespace that a dead holder has left, or status
inline Napi::Value marks(const Napi::CallbackInfo& info) {
  if (!check(info, info.Length() == 1 && info[0].IsNumber())) return info.Env().Undefined();
  std::vector<MarkedLock> found;
  const Status status = instance_of(info).client->marks(info[0].As<Napi::Number>().Uint32Value(), &found);
  if (!ok(status)) return Napi::Number::New(info.Env(), number(status));
  Napi::Array result = Napi::Array::New(info.Env(), found.size());
  for (uint32_t i = 0; i < found.size(); i++) {
    Napi::Object line = Napi::Object::New(info.Env());
    line.Set("name", name_to_string(info.Env(), found[i].name));
    line.Set("abandoned", mark_to_array(info.Env(), found[i].mark));
    result.Set(i, line);
  }
  return result;
}

// queryAll(id): Line[] with a name each, or status
inline Napi::Value query_all(const Napi::CallbackInfo& info) {
  if (!check(info, info.Length() == 1 && info[0].IsNumber())) return info.Env().Undefined();
  std::vector<HolderInfo> infos;
  std::unordered_map<uint32_t, LockName> names;
  const Status status =
      instance_of(info).client->query_all(info[0].As<Napi::Number>().Uint32Value(), &infos, &names);
  if (!ok(status)) return Napi::Number::New(info.Env(), number(status));
  return named_infos_to_array(info.Env(), infos, names);
}

// A wait, and what its owner holds: a context and a hold, and so on.
template <bool (Client::*call)(uint32_t, const std::vector<Client::Owned>&)>
Napi::Value with_owned(const Napi::CallbackInfo& info) {
  if (!check(info, info.Length() == 2 && info[0].IsNumber() && info[1].IsArray()))
    return info.Env().Undefined();
  const Napi::Array given = info[1].As<Napi::Array>();
  const auto number_at = [&](uint32_t index) { return given.Get(index).ToNumber().Uint32Value(); };
  std::vector<Client::Owned> owned;
  for (uint32_t i = 0; i + 1 < given.Length(); i += 2) owned.push_back({number_at(i), number_at(i + 1)});
  return Napi::Boolean::New(
      info.Env(), (instance_of(info).client.get()->*call)(info[0].As<Napi::Number>().Uint32Value(), owned));
}

// waitsInCycles(): holds
inline Napi::Value waits_in_cycles(const Napi::CallbackInfo& info) {
  const std::vector<uint32_t> waits = instance_of(info).client->waits_in_cycles();
  Napi::Array result = Napi::Array::New(info.Env(), waits.size());
  for (uint32_t i = 0; i < waits.size(); i++) result.Set(i, Napi::Number::New(info.Env(), waits[i]));
  return result;
}

// cycleOf(wait): Line[] with a name each, or status
inline Napi::Value cycle_of(const Napi::CallbackInfo& info) {
  if (!check(info, info.Length() == 1 && info[0].IsNumber())) return info.Env().Undefined();
  std::vector<HolderInfo> infos;
  std::unordered_map<uint32_t, LockName> names;
  const Status status =
      instance_of(info).client->cycle_of(info[0].As<Napi::Number>().Uint32Value(), &infos, &names);
  if (!ok(status)) return Napi::Number::New(info.Env(), number(status));
  return named_infos_to_array(info.Env(), infos, names);
}

// locksInCycles(id): string[] or status
inline Napi::Value locks_in_cycles(const Napi::CallbackInfo& info) {
  if (!check(info, info.Length() == 1 && info[0].IsNumber())) return info.Env().Undefined();
  std::vector<LockName> names;
  const Status status =
      instance_of(info).client->locks_in_cycles(info[0].As<Napi::Number>().Uint32Value(), &names);
  if (!ok(status)) return Napi::Number::New(info.Env(), number(status));
  Napi::Array result = Napi::Array::New(info.Env(), names.size());
  for (uint32_t i = 0; i < names.size(); i++) result.Set(i, name_to_string(info.Env(), names[i]));
  return result;
}

}  // namespace proclock::addon

#endif  // PROCLOCK_SUPPORTED
