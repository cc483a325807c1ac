//! JPEG images, decoded to the very bytes that Pillow gives (`Image.open(path).convert("RGB")`).
//!
//! Decoders differ by up to 4 of 255 levels, half of the usual perturbation. So this is libjpeg's
//! own arithmetic (mozjpeg decodes as libjpeg-turbo does), set up as Pillow sets it up: the
//! accurate integer cosine transform and smooth upsampling.
#![allow(unsafe_code)] // libjpeg is a C library; every call stands in this file

use std::{
    ffi::{c_int, c_ulong},
    mem::zeroed,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use mozjpeg_sys as ffi;

use crate::error::{Error, Result};

/// Larger images than any set for this purpose has.
const WIDEST: u32 = 4096;

/// An image as height, width and RGB bytes, row by row.
///
/// # Errors
/// If `bytes` are not a whole JPEG file, or one of a size or kind that no image set has.
pub fn decode(bytes: &[u8]) -> Result<((usize, usize), Vec<u8>)> {
    if !bytes.starts_with(b"\xff\xd8") {
        return wrong("it does not begin as one");
    }
    // libjpeg reports what it cannot decode by unwinding through its own frames, which were
    // compiled for that; everything it allocates hangs on `Decoder`, which is dropped on the way.
    let result = catch_unwind(AssertUnwindSafe(|| Decoder::new().run(bytes)));
    match result {
        Ok(image) => image,
        Err(payload) => match payload.downcast::<Refusal>() {
            Ok(refusal) => wrong(refusal.0),
            Err(other) => resume_unwind(other),
        },
    }
}

fn wrong<T>(what: impl std::fmt::Display) -> Result<T> {
    Err(Error::input(format!("JPEG image: {what}")))
}

/// What libjpeg says when it gives up.
struct Refusal(String);

/// libjpeg's state. Boxed: it holds pointers into itself.
struct Decoder {
    info: Box<ffi::jpeg_decompress_struct>,
    _errors: Box<ffi::jpeg_error_mgr>,
}

impl Decoder {
    fn new() -> Self {
        // SAFETY: both are plain C structs, for which zero bytes are valid and which libjpeg
        // fills in; they live on the heap until `drop`.
        unsafe {
            let mut errors: Box<ffi::jpeg_error_mgr> = Box::new(zeroed());
            ffi::jpeg_std_error(&mut errors);
            errors.error_exit = Some(give_up);
            errors.emit_message = Some(heed);
            let mut info: Box<ffi::jpeg_decompress_struct> = Box::new(zeroed());
            info.common.err = &raw mut *errors;
            ffi::jpeg_create_decompress(&raw mut *info);
            Self { info, _errors: errors }
        }
    }

    fn run(&mut self, bytes: &[u8]) -> Result<((usize, usize), Vec<u8>)> {
        let info = &mut *self.info;
        // SAFETY: `bytes` outlives the decoder, and the steps follow libjpeg's manual.
        unsafe {
            ffi::jpeg_mem_src(info, bytes.as_ptr(), bytes.len() as c_ulong);
            ffi::jpeg_read_header(info, 1);
        }
        let (width, height) = (info.image_width, info.image_height);
        if width > WIDEST || height > WIDEST {
            return wrong(format!("{width}x{height} pixels are more than {WIDEST} to an edge"));
        }
        let grey = info.num_components == 1;
        let inks = info.num_components == 4;
        if !grey && !inks && info.num_components != 3 {
            return wrong(format!("{} colour components; expected 1, 3 or 4", info.num_components));
        }
        info.out_color_space = match info.num_components {
            1 => ffi::J_COLOR_SPACE::JCS_GRAYSCALE,
            4 => ffi::J_COLOR_SPACE::JCS_CMYK,
            _ => ffi::J_COLOR_SPACE::JCS_RGB,
        };
        info.dct_method = ffi::J_DCT_METHOD::JDCT_ISLOW;
        info.do_fancy_upsampling = 1;
        let depth = info.num_components as usize;
        let (height, width) = (height as usize, width as usize);
        let mut rows = vec![0u8; height * width * depth];
        // SAFETY: libjpeg writes one row of `width * depth` bytes at a time.
        unsafe {
            ffi::jpeg_start_decompress(info);
            assert_eq!(info.output_components as usize, depth, "as asked for");
            for row in rows.chunks_exact_mut(width * depth) {
                let mut start = row.as_mut_ptr();
                ffi::jpeg_read_scanlines(info, &raw mut start, 1);
            }
            ffi::jpeg_finish_decompress(info);
        }
        let pixels = match depth {
            1 => rows.into_iter().flat_map(|level| [level; 3]).collect(),
            4 => rows.as_chunks().0.iter().flat_map(|inks| printed(*inks)).collect(),
            _ => rows,
        };
        Ok(((height, width), pixels))
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        unsafe { ffi::jpeg_destroy_decompress(&mut self.info) }
    }
}

/// The colour of four inks, which files hold inverted, by Pillow's rounding.
fn printed(inverted: [u8; 4]) -> [u8; 3] {
    let light = u32::from(inverted[3]);
    [0, 1, 2].map(|ink| {
        let product = u32::from(255 - inverted[ink]) * light + 128;
        light.saturating_sub(((product >> 8) + product) >> 8) as u8
    })
}

fn message(info: &mut ffi::jpeg_common_struct) -> String {
    // SAFETY: set in `Decoder::new`; libjpeg writes at most 80 bytes, zero-terminated.
    unsafe {
        let mut text = [0u8; 80];
        if let Some(format) = (*info.err).format_message {
            // The binding declares the buffer as read-only; C writes it.
            let buffer = &raw mut text;
            format(info, &*buffer);
        }
        let text = std::ptr::read_volatile(&raw const text);
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        String::from_utf8_lossy(&text[..end]).into_owned()
    }
}

extern "C-unwind" fn give_up(info: &mut ffi::jpeg_common_struct) {
    let text = message(info);
    resume_unwind(Box::new(Refusal(text)));
}

/// Passes over traces and harmless warnings (bytes between segments). What else libjpeg warns of is
/// damage, behind which decoders guess differently: no pixels are better than other pixels.
extern "C-unwind" fn heed(info: &mut ffi::jpeg_common_struct, level: c_int) {
    // SAFETY: set in `Decoder::new`.
    let code = unsafe { (*info.err).msg_code };
    if level >= 0 {
        return;
    }
    let what = match code as ffi::J_MESSAGE_CODE {
        ffi::JWRN_JPEG_EOF => "it is cut short".to_owned(),
        ffi::JWRN_HIT_MARKER | ffi::JWRN_HUFF_BAD_CODE | ffi::JWRN_MUST_RESYNC => {
            format!("it is damaged ({})", message(info))
        }
        _ => return,
    };
    resume_unwind(Box::new(Refusal(what)));
}
