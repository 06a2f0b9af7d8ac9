"use strict";
/* The record list by keyboard, and filters that apply at once. Without scripts, buttons do the same. */
(() => {
    const isTyping = (target) => target.closest("input, textarea, select, [contenteditable]") !== null;

    document.addEventListener("DOMContentLoaded", () => {
        const find = document.getElementById("searchbar");
        const filters = document.getElementById("fp-filters");
        const rows = [...document.querySelectorAll("#result_list tbody tr")];
        let current = -1;

        if (find) {
            // One line, so that Enter finds; many lines where a list was pasted.
            find.addEventListener("keydown", (event) => {
                if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
                    event.preventDefault();
                    find.form.requestSubmit();
                } else if (event.key === "Escape") {
                    find.blur();
                }
            });
            const grow = () => { find.rows = Math.min(find.value.split("\n").length, 8); };
            find.addEventListener("input", grow);
        }
        if (filters) {
            filters.classList.add("fp-at-once");
            filters.addEventListener("change", (event) => {
                if (event.target.matches("select, input[type=date]")) {
                    filters.requestSubmit();
                }
            });
            filters.addEventListener("submit", () => {
                // Addresses to share name only what is asked for.
                for (const field of filters.elements) {
                    field.disabled = field.name !== "" && field.value === "";
                }
            });
            window.addEventListener("pageshow", () => {
                for (const field of filters.elements) {
                    field.disabled = false;
                }
            });
        }

        const go = (step) => {
            if (!rows.length) {
                return;
            }
            rows[current]?.classList.remove("fp-current");
            current = Math.min(Math.max(current + step, 0), rows.length - 1);
            rows[current].classList.add("fp-current");
            const link = rows[current].querySelector("th a, td a");
            link?.focus({ preventScroll: true });
            rows[current].scrollIntoView({ block: "nearest" });
        };

        document.addEventListener("keydown", (event) => {
            if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) {
                return;
            }
            if (event.key === "/" && find) {
                event.preventDefault();
                find.focus();
            } else if (event.key === "j") {
                go(1);
            } else if (event.key === "k") {
                go(-1);
            } else if (event.key === "x" && current >= 0) {
                rows[current].querySelector("input.action-select")?.click();
            }
        });
    });
})();
