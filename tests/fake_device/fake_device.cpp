// Torch devices "fake" (PrivateUse1) for tests: their memory is plain CPU memory, every operator
// falls back to the CPU. Tensors of two devices in one operator are refused, as by CUDA: only a
// 0-dimensional CPU operand, and CPU indices, may meet tensors of a device. What would make a GPU
// wait is reported to a callback: copies between the devices, .item(), data-dependent shapes.
// No Python in here: it is loaded by torch.ops.load_library and talked to by ctypes.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_local_scalar_dense_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/ScopeExit.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>
#include <vector>

using at::IntArrayRef;
using at::Tensor;
using std::optional;

namespace {

constexpr auto kFake = c10::DeviceType::PrivateUse1;
c10::DeviceIndex device_count = 1;
thread_local c10::DeviceIndex current = 0;

bool is_fake(const Tensor& x) { return x.defined() && x.device().type() == kFake; }

// --- what is told to Python: kind (h2d, d2h, item, shape, scalar, index), device, detail
using Callback = void (*)(const char*, int, const char*);
std::atomic<Callback> callback{nullptr};
thread_local bool inside = false;  // of an operator, whose copies no GPU would make
thread_local bool quiet = false;  // about the type of Python's numbers
void tell(const char* kind, c10::Device device, const std::string& detail) {
  if (auto call = callback.load()) call(kind, device.index(), detail.c_str());
}

// --- what another device would lack: "float64", "float32" (its convolutions round as TF32 does),
// "float32_by_default" (unless torch.backends.cudnn.allow_tf32 is off), or names of operators
std::vector<std::string> lacking;
bool lacks(const std::string& name) {
  return std::find(lacking.begin(), lacking.end(), name) != lacking.end();
}

// --- memory
struct FakeAllocator final : at::Allocator {
  at::DataPtr allocate(size_t bytes) override {
    void* data = bytes ? c10::alloc_cpu(bytes) : nullptr;
    return {data, data, &c10::free_cpu, c10::Device(kFake, current)};
  }
  at::DeleterFnPtr raw_deleter() const override { return &c10::free_cpu; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
} allocator;
REGISTER_ALLOCATOR(kFake, &allocator);

// --- one stream, nothing to wait for
struct FakeGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kFake; }
  c10::Device getDevice() const override { return c10::Device(kFake, current); }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() < device_count, "there is no device ", device);
    uncheckedSetDevice(device);
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.has_index()) current = device.index();
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Stream getStream(c10::Device device) const noexcept override { return stream(device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return stream(device); }
  c10::Stream exchangeStream(c10::Stream now) const noexcept override { return now; }
  c10::DeviceIndex deviceCount() const noexcept override { return device_count; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag)
      const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  static c10::Stream stream(c10::Device device) {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, FakeGuard);

struct FakeHooks final : at::PrivateUse1HooksInterface {
  // Without `override`: which of them the interface has depends on the version of torch.
  bool isBuilt() const { return true; }
  bool isAvailable() const { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const { return true; }
  c10::DeviceIndex deviceCount() const { return device_count; }
  c10::DeviceIndex getCurrentDevice() const { return current; }
  void setCurrentDevice(c10::DeviceIndex index) const { current = index; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const {
    return std::exchange(current, index);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const {
    return std::exchange(current, index);
  }
  at::Device getDeviceFromPtr(void*) const { return c10::Device(kFake, current); }
};
const bool hooked = (at::RegisterPrivateUse1HooksInterface(new FakeHooks), true);

// --- tensors without values
void check(c10::ScalarType dtype) {
  const bool wide = dtype == at::kDouble || dtype == at::kComplexDouble;
  TORCH_CHECK_TYPE(
      quiet || !wide || !lacks("float64"),
      "Cannot convert a fake Tensor to float64: the device has none");
}

c10::OptionalDeviceGuard on(optional<at::Device> device) {
  return c10::OptionalDeviceGuard(device.value_or(c10::Device(kFake, current)));
}

Tensor empty(
    IntArrayRef size, optional<at::ScalarType> dtype, optional<at::Layout>,
    optional<at::Device> device, optional<bool>, optional<at::MemoryFormat> format) {
  const auto guard = on(device);
  check(c10::dtype_or_default(dtype));
  constexpr c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(size, &allocator, keys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(
    IntArrayRef size, IntArrayRef stride, optional<at::ScalarType> dtype, optional<at::Layout>,
    optional<at::Device> device, optional<bool>) {
  const auto guard = on(device);
  check(c10::dtype_or_default(dtype));
  constexpr c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(
      size, stride, &allocator, keys, c10::dtype_or_default(dtype));
}

// --- the same memory, seen as the CPU's
Tensor as_cpu(const Tensor& x) {
  if (!is_fake(x)) return x;
  return at::from_blob(x.data_ptr(), x.sizes(), x.strides(), x.options().device(at::kCPU));
}

Tensor on_device(const Tensor& x, c10::Device device) {
  if (!x.defined()) return x;
  Tensor copy = at::empty_strided(x.sizes(), x.strides(), x.options().device(device));
  as_cpu(copy).copy_(x);
  return copy;
}

Tensor copy_from(const Tensor& self, const Tensor& to, bool) {
  const auto detail = c10::str(self.dtype(), self.sizes());
  if (self.is_cpu() && !inside) tell("h2d", to.device(), detail);
  if (to.is_cpu() && !inside) tell("d2h", self.device(), detail);
  as_cpu(to).copy_(as_cpu(self));
  return to;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& to) {
  if (self.sizes() != to.sizes()) {  // an output of its own is laid out as the operator likes it
    to.resize_(self.sizes());
    if (self.is_non_overlapping_and_dense())
      to.unsafeGetTensorImpl()->set_sizes_and_strides(self.sizes(), self.strides());
  }
  as_cpu(to).copy_(as_cpu(self));
  return to;
}

at::Scalar local_scalar(const Tensor& self) {
  tell("item", self.device(), c10::toString(self.scalar_type()));
  return at::native::_local_scalar_dense_cpu(as_cpu(self));
}

Tensor& set_storage(
    Tensor& self, at::Storage source, int64_t offset, IntArrayRef size, IntArrayRef stride) {
  return at::native::set_storage_cpu_(self, std::move(source), offset, size, stride);
}

// --- everything else
// Nothing is moved but what CUDA, too, moves by itself; all others are refused.
struct Devices {
  const std::string& op;
  bool indices;  // aten::index and its like: indices may be the CPU's
  optional<c10::Device> device{};  // the first there is
  void look(const Tensor& x) {
    if (is_fake(x) && !device) device = x.device();
  }
  Tensor same(const Tensor& x, bool written, bool index, bool first = false) const {
    if (!x.defined() || x.device() == device) return x;
    const bool number = x.unsafeGetTensorImpl()->is_wrapped_number();  // Python's
    if (number && !first) return x;  // the first decides where the result will be
    const bool scalar = x.is_cpu() && x.dim() == 0 && !written;
    TORCH_CHECK(
        scalar || (index && x.is_cpu()),
        "Expected all tensors to be on the same device, but found at least two devices, ",
        *device, " and ", x.device(), "! (in ", op, ")");
    if (!number) tell(index ? "index" : "scalar", *device, op);
    quiet = number;
    const auto loud = c10::make_scope_exit([] { quiet = false; });
    const Tensor moved = on_device(x, *device);
    if (number) moved.unsafeGetTensorImpl()->set_wrapped_number(true);
    return moved;
  }
};

bool shape_depends_on_data(const std::string& name, const torch::jit::Stack& stack, size_t first) {
  for (const char* one : {"nonzero", "masked_select", "_unique", "_unique2", "unique_dim",
                          "unique_consecutive", "bincount", "equal", "is_nonzero", "histc"})
    if (name == std::string("aten::") + one) return true;
  if (name == "aten::index_put_" || name == "aten::_index_put_impl_") {
    for (const auto& x : stack[first + 1].toListRef())  // a mask is turned into indices
      if (x.isTensor() && x.toTensor().defined() &&
          (x.toTensor().scalar_type() == at::kBool || x.toTensor().scalar_type() == at::kByte))
        return true;
  }
  return name == "aten::repeat_interleave" && stack[first].isTensor();
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto& arguments = schema.arguments();
  const auto& name = schema.name();
  const size_t first = stack->size() - arguments.size();
  TORCH_CHECK_NOT_IMPLEMENTED(!lacks(name), name, " is not implemented for the device fake");
  Devices devices{name, name.rfind("aten::index", 0) == 0 || name == "aten::_index_put_impl_"};
  for (size_t i = 0; i < arguments.size(); i++) {
    const auto& value = (*stack)[first + i];
    if (value.isTensor()) devices.look(value.toTensor());
    if (value.isList())
      for (const auto& x : value.toListRef())
        if (x.isTensor()) devices.look(x.toTensor());
  }
  if (devices.device && shape_depends_on_data(name, *stack, first))
    tell("shape", *devices.device, name);
  for (size_t i = 0; devices.device && i < arguments.size(); i++) {
    auto& value = (*stack)[first + i];
    const bool written = arguments[i].alias_info() && arguments[i].alias_info()->isWrite();
    if (value.isTensor()) value = devices.same(value.toTensor(), written, false, i == 0);
    if (value.isTensorList()) {
      c10::List<Tensor> same;
      for (const Tensor& x : value.toTensorList()) same.push_back(devices.same(x, written, false));
      value = same;
    } else if (value.isOptionalTensorList()) {
      c10::List<optional<Tensor>> same;
      for (optional<Tensor> x : value.toOptionalTensorList())
        same.push_back(x ? optional<Tensor>(devices.same(*x, written, devices.indices)) : x);
      value = same;
    }
  }
  inside = true;
  const auto leave = c10::make_scope_exit([] { inside = false; });
  at::native::cpu_fallback(op, stack);
}

// As Ampere's tensor cores do by default for a convolution: of the mantissa they see 10 bits.
template <class Context>  // torch 2.9 and later ask for the operator
auto allows_tf32(Context& context, int) -> decltype(context.allowTF32CuDNN("conv")) {
  return context.allowTF32CuDNN("conv");
}
template <class Context>
bool allows_tf32(Context& context, long) {
  return context.allowTF32CuDNN();
}

Tensor tf32(const Tensor& x) {
  const bool rounds =
      lacks("float32") || (lacks("float32_by_default") && allows_tf32(at::globalContext(), 0));
  if (!rounds || x.scalar_type() != at::kFloat) return x;
  return x.view(at::kInt).bitwise_and(~0x1fff).view(at::kFloat);
}

// Convolution is chosen by the device before it is dispatched.
Tensor convolution(
    const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, IntArrayRef stride,
    IntArrayRef padding, IntArrayRef dilation, bool transposed, IntArrayRef output_padding,
    int64_t groups) {
  const std::string name = "aten::convolution";
  const Devices devices{name, false, x.device()};
  for (const Tensor& one : {x, weight, bias.value_or(Tensor())}) devices.same(one, true, false);
  const auto cpu_bias = bias ? optional<Tensor>(as_cpu(*bias)) : bias;
  const Tensor y = at::convolution(
      tf32(as_cpu(x)), tf32(as_cpu(weight)), cpu_bias, stride, padding, dilation, transposed,
      output_padding, groups);
  return on_device(y, x.device());
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& x, const Tensor& weight, IntArrayRef stride,
    IntArrayRef padding, IntArrayRef dilation, bool transposed, IntArrayRef output_padding,
    int64_t groups, std::array<bool, 3> mask) {
  const std::string name = "aten::convolution_backward";
  const Devices devices{name, false, x.device()};
  for (const Tensor& one : {gradient, x, weight}) devices.same(one, true, false);
  const int64_t channels = weight.size(transposed ? 1 : 0);
  auto [dx, dw, db] = at::convolution_backward(
      tf32(as_cpu(gradient)), tf32(as_cpu(x)), tf32(as_cpu(weight)), IntArrayRef{channels}, stride,
      padding, dilation, transposed, output_padding, groups, mask);
  const auto device = x.device();
  return {on_device(dx, device), on_device(dw, device), on_device(db, device)};
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {  // the casts that CUDA's nets meet
  KERNEL_PRIVATEUSEONE(conv2d, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(addmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(mm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(rsqrt, fp32)
  KERNEL_PRIVATEUSEONE(pow, Tensor_Scalar, fp32)
  KERNEL_PRIVATEUSEONE(nll_loss, fp32)
  KERNEL_PRIVATEUSEONE(log_softmax, int, fp32_set_opt_dtype)
  KERNEL_PRIVATEUSEONE(sum, fp32_set_opt_dtype)
}
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar);
  m.impl("set_.source_Tensor", at::native::set_tensor_);
  m.impl("set_.source_Storage", static_cast<Tensor& (*)(Tensor&, at::Storage)>(at::native::set_));
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("resize_", at::native::resize_);
  m.impl("view", at::native::view);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
}

#define FOR_PYTHON extern "C" __attribute__((visibility("default")))
FOR_PYTHON void fake_device_listen(Callback call) { callback = call; }
FOR_PYTHON void fake_device_lack(const char* name) { lacking.push_back(name); }
FOR_PYTHON void fake_device_count(int count) { device_count = count; }
FOR_PYTHON int fake_device_exchange(int index) { return std::exchange(current, index); }
