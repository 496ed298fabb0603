#include "addon/session_thread.h"

#include <utility>

#include "addon/model_state.h"
#include "core/status.h"

namespace loko::addon {

SessionThread::SessionThread(Napi::Env env, std::function<std::unique_ptr<ModelState>()> makeState)
    : env_(env), makeState_(std::move(makeState)) {}

SessionThread::~SessionThread() = default;

void SessionThread::launch() {
  events_ = EventQueue::New(env_, "loko.session", 0, 1, this);
  events_.Unref(env_);
  try {
    thread_ = std::thread([this] { loop(); });
  } catch (...) {
    events_.Release();
    throw;
  }
  // After the queue, whose own hook must run later than ours: hooks run in reverse order.
  napi_add_env_cleanup_hook(env_, &SessionThread::onTeardown, this);
  self_ = shared_from_this();
}

Napi::Promise SessionThread::start(std::unique_ptr<Job> job) {
  LOKO_CHECK(!busy() && !finished_, "a session runs one job at a time");
  if (!thread_.joinable()) launch();
  const Napi::Promise promise = job->deferred.Promise();
  job_ = std::move(job);
  events_.Ref(env_);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    pending_ = job_.get();
  }
  changed_.notify_one();
  return promise;
}

void SessionThread::finish() {
  if (std::exchange(finished_, true)) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  if (!thread_.joinable()) makeState_ = nullptr;
}

void SessionThread::account(std::int64_t bytes) {
  Napi::MemoryManagement::AdjustExternalMemory(env_, bytes - accountedBytes_);
  accountedBytes_ = bytes;
}

void SessionThread::loop() {
  std::unique_ptr<ModelState> state;
  for (;;) {
    Job* job = nullptr;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return pending_ != nullptr || stop_; });
      job = std::exchange(pending_, nullptr);
    }
    if (job == nullptr) break;
    try {
      if (state == nullptr) state = makeState_();
      job->run(*state);
    } catch (...) {
      job->failure = Failure::current();
    }
    events_.NonBlockingCall(reinterpret_cast<void*>(Event::kJobDone));
  }
  state.reset();
  events_.NonBlockingCall(reinterpret_cast<void*>(Event::kStopped));
  events_.Release();
}

void SessionThread::onEvent(Napi::Env env, Napi::Function, SessionThread* self, void* event) {
  if (static_cast<napi_env>(env) == nullptr) return;  // teardown: `self` may be gone
  if (static_cast<Event>(reinterpret_cast<std::uintptr_t>(event)) == Event::kJobDone) {
    self->settle(env);
    return;
  }
  napi_remove_env_cleanup_hook(env, &SessionThread::onTeardown, self);
  const std::shared_ptr<SessionThread> alive = std::move(self->self_);
  alive->join();
  alive->account(0);
}

void SessionThread::settle(Napi::Env env) {
  // Free before the promise settles: a continuation may start the next job.
  const std::unique_ptr<Job> job = std::move(job_);
  events_.Unref(env);
  try {
    if (!job->failure) {
      job->deferred.Resolve(job->resolve ? job->resolve(env) : env.Undefined());
      return;
    }
  } catch (const Napi::Error&) {
    return;  // only where JavaScript can no longer run: a worker being terminated
  } catch (...) {
    job->failure = Failure::current();
  }
  try {
    job->deferred.Reject(toError(env, *job->failure).Value());
  } catch (const Napi::Error&) {
  }
}

void SessionThread::join() {
  if (thread_.joinable()) thread_.join();
  makeState_ = nullptr;
}

void SessionThread::onTeardown(void* data) {
  auto* self = static_cast<SessionThread*>(data);
  const std::shared_ptr<SessionThread> alive = std::move(self->self_);
  {
    const std::lock_guard<std::mutex> lock(alive->mutex_);
    alive->pending_ = nullptr;
    alive->stop_ = true;
  }
  alive->changed_.notify_one();
  alive->finished_ = true;
  alive->join();
  alive->job_.reset();
}

}  // namespace loko::addon
