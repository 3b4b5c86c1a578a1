// Takes a photo with the device's camera.
import { $, h, icon, iconButton, toast } from "./dom.js";

/** Open the camera; `use(blob)` gets the photo. */
export async function camera(use) {
  const wanted = { video: { facingMode: "environment", width: { ideal: 1600 } } };
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia(wanted);
  } catch {
    toast("No camera can be used here; allow it in the browser, or pick a file.", { bad: true });
    return;
  }
  const dialog = $("#camera");
  const video = h("video", { playsInline: true, muted: true, autoplay: true, "aria-label": "What the camera sees" });
  video.srcObject = stream;
  const shoot = async () => {
    const canvas = h("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    dialog.close();
    canvas.toBlob(use, "image/jpeg", 0.92);
  };
  dialog.replaceChildren(
    h("header", {}, h("h2", {}, "Camera"), iconButton("close", "Close", () => dialog.close())),
    video,
    h("footer", {}, h("button.go", { type: "button", onclick: shoot }, icon("camera"), "Search with this")),
  );
  dialog.addEventListener("close", () => stream.getTracks().forEach((track) => track.stop()), { once: true });
  dialog.showModal();
}
