#include "runtime/supervisor_plan.hpp"

#include <caf/all.hpp>

#include <map>
#include <stdexcept>

namespace coppice::rt {

struct tree::impl {
  impl(const directory& dir, std::string path, supervisor_options options)
      : plan(std::make_shared<supervisor_plan>(supervisor_plan{std::move(path), dir, false, options, {}})) {}
  std::shared_ptr<supervisor_plan> plan;
  caf::strong_actor_ptr ref;
  std::map<std::string, caf::strong_actor_ptr> reserved;
  std::vector<std::unique_ptr<tree>> nodes;
};

tree::tree(const directory& dir, std::string path, supervisor_options options)
    : impl_(std::make_unique<impl>(dir, std::move(path), options)) {
  impl_->ref = impl_->plan->dir.declare(impl_->plan->path);
  if (!impl_->ref) throw std::logic_error("two actors are called " + impl_->plan->path);
}

tree::~tree() = default;
tree::tree(tree&&) noexcept = default;

const std::string& tree::path() const {
  return impl_->plan->path;
}

supervisor_actor tree::handle() const {
  return caf::actor_cast<supervisor_actor>(impl_->ref);
}

child_options tree::node_defaults() {
  child_options o;
  o.grace = std::chrono::minutes{5};
  return o;
}

caf::strong_actor_ptr tree::reserve(const std::string& name, ref_options options) {
  auto path = impl_->plan->path_of(name);
  auto ref = impl_->plan->dir.declare(path, options);
  if (!ref) throw std::logic_error("two actors are called " + path);
  impl_->reserved[name] = ref;
  return ref;
}

caf::strong_actor_ptr tree::add(child_spec spec) {
  auto i = impl_->reserved.find(spec.name);
  if (i == impl_->reserved.end()) {
    reserve(spec.name, spec.options.ref);
    i = impl_->reserved.find(spec.name);
  }
  spec.ref = i->second;
  impl_->reserved.erase(i);
  impl_->plan->children.push_back(spec);
  return spec.ref;
}

tree& tree::node(const std::string& name, supervisor_options options, child_options as_child) {
  auto& plan = *impl_->plan;
  auto& sub = *impl_->nodes.emplace_back(std::make_unique<tree>(plan.dir, plan.path_of(name), options));
  plan.children.push_back({name, make_supervisor(sub.impl_->plan), as_child, sub.impl_->ref});
  return sub;
}

caf::strong_actor_ptr tree::run(std::function<void(const caf::error&)> ended) {
  impl_->plan->root = true;
  auto root = as_ref(impl_->ref).rebirth(make_supervisor(impl_->plan), {});
  root->get()->attach_functor(
      [dir = impl_->plan->dir, ref = impl_->ref, ended = std::move(ended)](const caf::error& why) {
        dir.stop_all(why, ref);
        if (ended) ended(why);
        as_ref(ref).stop(why); // last: whoever monitors the root may take down all that `ended` uses
      });
  return impl_->ref;
}

void shut_down(const caf::strong_actor_ptr& root) {
  send_exit(root, make_error(ec::shutdown));
}

bool shut_down_and_wait(caf::actor_system& system, const caf::strong_actor_ptr& root, std::chrono::milliseconds d) {
  caf::scoped_actor me{system};
  me->monitor(root);
  shut_down(root);
  bool down = false;
  me->receive([&](const caf::down_msg&) { down = true; }, caf::after(d) >> [] {});
  return down;
}

} // namespace coppice::rt
