#include "bench/support/plain_etcd.hpp"

#include "etcd.grpc.pb.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <vector>

namespace coppice::bench {
namespace {

namespace pb = etcdserverpb;

/// One key that is locked and unlocked again and again.
struct lock_loop {
  std::string key;
  std::size_t rounds_left = 0;
  std::int64_t revision = 0; ///< in which it was put; 0: it is not held
  pb::TxnRequest request;
  pb::TxnResponse answer;
  grpc::Status status;
  std::unique_ptr<grpc::ClientContext> context;
  std::unique_ptr<grpc::ClientAsyncResponseReader<pb::TxnResponse>> call;

  void ask(pb::KV::Stub& etcd, grpc::CompletionQueue& queue) {
    request.Clear();
    auto& c = *request.add_compare();
    c.set_target(pb::Compare::MOD);
    c.set_key(key);
    c.set_mod_revision(revision);
    if (revision == 0) {
      auto& put = *request.add_success()->mutable_request_put();
      put.set_key(key);
      put.set_value("node-1/session-1");
    } else {
      request.add_success()->mutable_request_delete_range()->set_key(key);
    }
    context = std::make_unique<grpc::ClientContext>();
    call = etcd.AsyncTxn(context.get(), request, &queue);
    call->Finish(&answer, &status, this);
  }
};

} // namespace

double plain_etcd_locks(const std::string& endpoint, const std::string& prefix, std::size_t keys, std::size_t rounds) {
  auto address = endpoint.substr(endpoint.find("//") + 2);
  auto etcd = pb::KV::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::CompletionQueue queue;
  std::vector<lock_loop> loops(keys);
  const auto start = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < keys; ++i) {
    loops[i].key = prefix + std::to_string(i);
    loops[i].rounds_left = rounds;
    loops[i].ask(*etcd, queue);
  }
  for (std::size_t open = keys; open > 0;) {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    auto& loop = *static_cast<lock_loop*>(tag);
    if (!loop.status.ok()) throw std::runtime_error("etcd: " + loop.status.error_message());
    if (!loop.answer.succeeded()) throw std::runtime_error("etcd: somebody else has the lock " + loop.key);
    const bool released = loop.revision != 0;
    loop.revision = released ? 0 : loop.answer.header().revision();
    if (released && --loop.rounds_left == 0)
      --open;
    else
      loop.ask(*etcd, queue);
  }
  queue.Shutdown();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

} // namespace coppice::bench
