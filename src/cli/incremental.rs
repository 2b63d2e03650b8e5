//! IncrementalAlterConfigs (KIP-339) through the library itself: its Rust binding has only the
//! older request, which replaces all settings at once, and does not report what the broker refuses.
#![allow(
    unsafe_code,
    reason = "calls into librdkafka that its Rust binding does not have"
)]

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use anyhow::{anyhow, bail};
use rdkafka::bindings as ffi;
use rdkafka::consumer::Consumer as _;

use super::client::Connection;

/// Something of the library's that is given back when dropped.
struct Owned<T> {
    pointer: *mut T,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// Takes over what a constructor of the library has returned, together with the function that
    /// the library names for giving it back; `None`: it returned nothing.
    fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        (!pointer.is_null()).then_some(Self { pointer, free })
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `pointer` was made by the library, is not null, and is freed nowhere else.
        unsafe { (self.free)(self.pointer) }
    }
}

/// Text that belongs to the library.
///
/// # Safety
/// `text` is null or a C string that stays during the call.
unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}

/// Changes settings of a topic, all or none: `Some` sets one, `None` returns it to its default.
///
/// # Errors
/// What the broker says.
pub(super) fn alter_topic(
    connection: &Connection,
    topic: &str,
    changes: &[(&str, Option<&str>)],
) -> anyhow::Result<()> {
    let client = connection.consumer.client().native_ptr();
    let timeout_ms = i32::try_from(connection.timeout.as_millis()).unwrap_or(i32::MAX);
    let out_of_memory = || anyhow!("out of memory");

    let name = CString::new(topic)?;
    // SAFETY: the library copies the name.
    let resource = unsafe {
        let kind = ffi::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
        ffi::rd_kafka_ConfigResource_new(kind, name.as_ptr())
    };
    let resource =
        Owned::new(resource, ffi::rd_kafka_ConfigResource_destroy).ok_or_else(out_of_memory)?;
    for (key, value) in changes {
        use ffi::rd_kafka_AlterConfigOpType_t as Op;
        let key_text = CString::new(*key)?;
        let value_text = value.map(CString::new).transpose()?;
        let (operation, value) = match &value_text {
            Some(value) => (Op::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET, value.as_ptr()),
            None => (Op::RD_KAFKA_ALTER_CONFIG_OP_TYPE_DELETE, ptr::null()),
        };
        // SAFETY: the resource is ours, both texts live until the library has copied them, and
        // only a deletion has no value.
        let error = unsafe {
            ffi::rd_kafka_ConfigResource_add_incremental_config(
                resource.pointer,
                key_text.as_ptr(),
                operation,
                value,
            )
        };
        if let Some(error) = Owned::new(error, ffi::rd_kafka_error_destroy) {
            // SAFETY: the error is ours, and its text lives as long.
            let reason = unsafe { text(ffi::rd_kafka_error_string(error.pointer)) };
            bail!("topic {topic}: {key}: {}", reason.unwrap_or_default());
        }
    }

    // SAFETY: the client lives as long as `connection`, and so longer than the two.
    let (options, queue) = unsafe {
        let operation = ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS;
        (
            ffi::rd_kafka_AdminOptions_new(client, operation),
            ffi::rd_kafka_queue_new(client),
        )
    };
    let options =
        Owned::new(options, ffi::rd_kafka_AdminOptions_destroy).ok_or_else(out_of_memory)?;
    let queue = Owned::new(queue, ffi::rd_kafka_queue_destroy).ok_or_else(out_of_memory)?;
    let mut resources = [resource.pointer];
    // SAFETY: everything is alive, the array has the one element it is said to have, and the
    // library copies what it is given. The answer comes through the queue, which outlives it. A
    // timeout that the library does not accept leaves its own.
    let event = unsafe {
        ffi::rd_kafka_AdminOptions_set_request_timeout(
            options.pointer,
            timeout_ms,
            ptr::null_mut(),
            0,
        );
        ffi::rd_kafka_IncrementalAlterConfigs(
            client,
            resources.as_mut_ptr(),
            resources.len(),
            options.pointer,
            queue.pointer,
        );
        // The request has a deadline of its own; this one is for the case that it is missed.
        let patience = connection.timeout + Duration::from_secs(5);
        let patience_ms = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        ffi::rd_kafka_queue_poll(queue.pointer, patience_ms)
    };
    let event = Owned::new(event, ffi::rd_kafka_event_destroy)
        .ok_or_else(|| anyhow!("topic {topic}: no answer in time; it may have been changed"))?;
    match unsafe { refusal(&event) } {
        None => Ok(()),
        Some(reason) => bail!("topic {topic}: {reason}"),
    }
}

/// Why the broker did not do it.
///
/// # Safety
/// `event` is an event of the library.
unsafe fn refusal(event: &Owned<ffi::rd_kafka_event_t>) -> Option<String> {
    use ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR as NO_ERROR;
    // SAFETY: the event is alive; the result, its resources and their texts belong to it, and the
    // library says how many resources there are.
    unsafe {
        if ffi::rd_kafka_event_error(event.pointer) != NO_ERROR {
            let reason = text(ffi::rd_kafka_event_error_string(event.pointer));
            return Some(reason.unwrap_or_else(|| "the request failed".to_owned()));
        }
        let result = ffi::rd_kafka_event_IncrementalAlterConfigs_result(event.pointer);
        if result.is_null() {
            return Some("the answer is to another request".to_owned());
        }
        let mut count = 0;
        let resources =
            ffi::rd_kafka_IncrementalAlterConfigs_result_resources(result, &raw mut count);
        for i in 0..count {
            let resource = *resources.add(i);
            if ffi::rd_kafka_ConfigResource_error(resource) != NO_ERROR {
                let reason = text(ffi::rd_kafka_ConfigResource_error_string(resource));
                return Some(reason.unwrap_or_else(|| "the broker refused".to_owned()));
            }
        }
        None
    }
}
