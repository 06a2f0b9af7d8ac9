"use strict";
/* One record by keyboard; pictures enlarged side by side; speed of videos; hashes to copy. */
document.addEventListener("DOMContentLoaded", () => {
    const section = document.getElementById("fp-media");
    const show = document.getElementById("fp-show-media");
    const viewer = document.getElementById("fp-viewer");
    const compare = document.getElementById("fp-compare");
    const tools = document.querySelector(".fp-media-tools");
    const speed = document.getElementById("fp-speed");
    const videos = section ? [...section.querySelectorAll("video")] : [];

    // --- pictures ---

    let zoom = 1, x = 0, y = 0;
    const place = () => {
        viewer.style.setProperty("--fp-zoom", zoom);
        viewer.style.setProperty("--fp-x", `${x}px`);
        viewer.style.setProperty("--fp-y", `${y}px`);
    };
    const zoomBy = (factor) => {
        zoom = Math.min(Math.max(zoom * factor, 1), 12);
        if (zoom === 1) {
            x = y = 0;
        }
        place();
    };
    const open = (pictures) => {
        const stage = viewer.querySelector(".fp-viewer-pictures");
        stage.replaceChildren(...pictures.map((picture) => {
            const figure = document.createElement("figure");
            const frame = document.createElement("div");
            const image = document.createElement("img");
            const caption = document.createElement("figcaption");
            // The very picture that was opened and logged: the browser has it.
            image.src = picture.currentSrc || picture.src;
            image.alt = picture.alt;
            image.draggable = false;
            caption.textContent = picture.alt;
            frame.append(image);
            figure.append(frame, caption);
            return figure;
        }));
        zoom = 1;
        x = y = 0;
        place();
        viewer.showModal();
        stage.focus();
    };
    const opened = () => [...section.querySelectorAll("img[data-kind]")].filter((image) => image.complete && image.naturalWidth);
    const toCompare = () => {
        const order = ["face", "id_front", "match_image", "attempt_face", "frame", "id_back"];
        return opened().sort((a, b) => order.indexOf(a.dataset.kind) - order.indexOf(b.dataset.kind)).slice(0, 3);
    };

    if (section && viewer) {
        show?.addEventListener("click", () => { tools.hidden = false; });
        compare?.addEventListener("click", () => { open(toCompare()); });
        section.addEventListener("click", (event) => {
            const picture = event.target.closest("a.fp-clear")?.querySelector("img[data-kind]");
            if (picture && picture.naturalWidth && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
                event.preventDefault();
                open([picture]);
            }
        });
        viewer.querySelector("[data-close]").addEventListener("click", () => { viewer.close(); });
        for (const button of viewer.querySelectorAll("[data-zoom]")) {
            button.addEventListener("click", () => { zoomBy(button.dataset.zoom === "in" ? 1.5 : 1 / 1.5); });
        }
        viewer.addEventListener("wheel", (event) => {
            event.preventDefault();
            zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2);
        }, { passive: false });
        const stage = viewer.querySelector(".fp-viewer-pictures");
        stage.addEventListener("pointerdown", (event) => {
            stage.setPointerCapture(event.pointerId);
            stage.dataset.dragging = "";
        });
        stage.addEventListener("pointermove", (event) => {
            if ("dragging" in stage.dataset && zoom > 1) {
                x += event.movementX;
                y += event.movementY;
                place();
            }
        });
        for (const end of ["pointerup", "pointercancel"]) {
            stage.addEventListener(end, () => { delete stage.dataset.dragging; });
        }
        viewer.addEventListener("keydown", (event) => {
            const steps = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
            if (event.key === "+" || event.key === "=") {
                zoomBy(1.5);
            } else if (event.key === "-") {
                zoomBy(1 / 1.5);
            } else if (event.key === "0") {
                zoomBy(0);
            } else if (event.key in steps && zoom > 1) {
                x += steps[event.key][0];
                y += steps[event.key][1];
                place();
            } else {
                return;
            }
            event.preventDefault();
            event.stopPropagation();
        });
    }

    // --- videos ---

    speed?.addEventListener("change", () => {
        for (const video of videos) {
            video.playbackRate = Number(speed.value);
        }
    });

    // --- hashes ---

    for (const button of document.querySelectorAll("[data-copy]")) {
        if (navigator.clipboard) {
            button.hidden = false;
            button.addEventListener("click", async () => {
                await navigator.clipboard.writeText(button.dataset.copy);
                button.textContent = "✓";
            });
        }
    }

    // --- keys ---

    document.addEventListener("keydown", (event) => {
        const isTyping = event.target.closest("input, textarea, select, [contenteditable], dialog") !== null;
        if (isTyping || event.ctrlKey || event.metaKey || event.altKey) {
            return;
        }
        if (event.key === "o") {
            document.getElementById("fp-show-media")?.click();
        } else if (event.key === "c" && tools && !tools.hidden) {
            compare?.click();
        } else {
            document.querySelector(`a[data-key="${CSS.escape(event.key)}"]`)?.click();
        }
    });
});
