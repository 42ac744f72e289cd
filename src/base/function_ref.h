#pragma once
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

namespace pare {

template <class Signature>
class FunctionRef;

/// A callable passed down a call chain without owning or allocating; it must outlive the call.
template <class Result, class... Args>
class FunctionRef<Result(Args...)> {
 public:
  template <class Callable>
    requires(!std::is_same_v<std::remove_cvref_t<Callable>, FunctionRef> &&
             !std::is_null_pointer_v<std::remove_cvref_t<Callable>>)
  FunctionRef(Callable&& callable)  // NOLINT(google-explicit-constructor): meant to take lambdas
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(callable)))),
        call_([](void* object, Args... args) -> Result {
          return (*static_cast<std::remove_reference_t<Callable>*>(object))(std::forward<Args>(args)...);
        }) {}
  FunctionRef(std::nullptr_t) {}  // NOLINT(google-explicit-constructor): none
  explicit operator bool() const { return call_ != nullptr; }
  Result operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_ = nullptr;
  Result (*call_)(void*, Args...) = nullptr;
};

}  // namespace pare
